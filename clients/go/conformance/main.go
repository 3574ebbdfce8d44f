// Command conformance runs one case of protocol/conformance/README.md: `conformance CASE URL [EXTRA]`.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	kingpole "github.com/kingpole/kingpole/clients/go"
)

// A case that waits for ever is a failure whose place should be seen.
const caseTimeout = 100 * time.Second

var withClient = map[string]func(context.Context, *kingpole.Client, string) error{
	"server": server, "datatypes": datatypes, "shapes": shapes, "parameters": parameters, "errors": errorCodes,
	"open-inference": openInference, "deadline": deadline, "cancel": cancel, "stream": stream, "sequence": sequence,
	"pipeline": pipeline, "large": large, "killed": killed,
}

var withURL = map[string]func(ctx context.Context, url, extra string) error{
	"token": token, "tls": tls, "hostile": hostile, "shared-memory": sharedMemory,
}

func runCase(name, url, extra string) error {
	ctx, stop := context.WithTimeout(context.Background(), caseTimeout)
	defer stop()
	if run, is := withURL[name]; is {
		return run(ctx, url, extra)
	}
	run, is := withClient[name]
	if !is {
		return fmt.Errorf("there is no case %s", name)
	}
	client, err := kingpole.Connect(url)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return run(ctx, client, extra)
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "transports":
		fmt.Println("http grpc frame unix")
		return nil
	case len(arguments) == 3 && arguments[0] == "encode":
		return encodeVectors(arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "bench":
		return bench(arguments[1])
	case len(arguments) == 2:
		return runCase(arguments[0], arguments[1], "")
	case len(arguments) == 3:
		return runCase(arguments[0], arguments[1], arguments[2])
	}
	return fmt.Errorf("usage: run conformance transports | CASE URL [EXTRA] | encode DIRECTORY OUT | bench URL")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

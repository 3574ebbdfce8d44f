package kingpole

// Against the real server, whose command the environment variable KINGPOLE says.

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// serve starts a server of the conformance models and returns its URLs.
func serve(t *testing.T) []string {
	t.Helper()
	command := strings.Fields(os.Getenv("KINGPOLE"))
	if len(command) == 0 {
		t.Skip("KINGPOLE does not say the server's command")
	}
	models, err := filepath.Abs(filepath.Join("..", "..", "protocol", "conformance", "models"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(models); err != nil {
		t.Skip("the models are in the repository, not in the module")
	}
	socket := filepath.Join(t.TempDir(), "s")
	server := exec.Command(command[0], append(command[1:], "serve", models,
		"--listen", "127.0.0.1:0", "--listen", "unix:"+socket, "--management", "off")...)
	output, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		time.AfterFunc(10*time.Second, func() { _ = server.Process.Kill() })
		_ = server.Wait()
	})
	port, lines := "", bufio.NewScanner(output)
	pattern := regexp.MustCompile(`http://127\.0\.0\.1:(\d+)`)
	for lines.Scan() {
		if found := pattern.FindStringSubmatch(lines.Text()); found != nil {
			port = found[1]
		}
		if strings.HasPrefix(lines.Text(), "ready") {
			go func() {
				for lines.Scan() {
				}
			}()
			address := "://127.0.0.1:" + port
			return []string{"http" + address, "grpc" + address, "frame" + address, "unix:" + socket}
		}
	}
	t.Fatal("the server ended before it was ready")
	return nil
}

func TestEveryTransportAnswersStreamsAndGivesUp(t *testing.T) {
	x := NewTensor("x", []float32{1, 2, 3, 4}, 2, 2)
	for _, url := range serve(t) {
		client, err := Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		response, err := client.Infer(ctx, &Request{Model: "echo-fp32", Inputs: []Tensor{x}})
		if err != nil {
			t.Fatalf("%s: %s", url, err)
		}
		if values, err := ValuesOf[float32](response, "x"); err != nil || values[3] != 4 {
			t.Errorf("%s gave %v, %v", url, values, err)
		}
		if _, err := client.Infer(ctx, &Request{Model: "absent", Inputs: []Tensor{x}}); !errors.Is(err, NotFound) {
			t.Errorf("%s: an absent model is %v", url, err)
		}
		count := 0
		for _, err := range client.Stream(ctx, &Request{Model: "count", Inputs: []Tensor{NewTensor("count", []int32{5})}}) {
			if err != nil {
				t.Fatalf("%s: %s", url, err)
			}
			count++
		}
		if count != 5 {
			t.Errorf("%s gave %d of 5 responses", url, count)
		}
		short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
		_, err = client.Infer(short, &Request{Model: "sleeps", Inputs: []Tensor{x}, Parameters: map[string]any{"seconds": 5}})
		stop()
		if !errors.Is(err, DeadlineExceeded) {
			t.Errorf("%s: a deadline is %v", url, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if _, err := client.Infer(ctx, &Request{Model: "echo-fp32", Inputs: []Tensor{x}}); !errors.Is(err, Cancelled) {
			t.Errorf("%s: a closed client says %v", url, err)
		}
	}
}

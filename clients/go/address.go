package kingpole

// A server's address, read from a URL. Opens no socket.

import (
	"net"
	"net/url"
	"strings"
)

var defaultPorts = map[string]string{"http": "80", "https": "443", "grpc": "8000", "grpcs": "443", "frame": "8000"}

type address struct {
	scheme, host, port string
	// path of a Unix socket; then host and port are empty.
	path string
	// prefix of every HTTP path.
	prefix string
}

func (a address) String() string {
	if a.scheme == "unix" {
		return "unix:" + a.path
	}
	return a.scheme + "://" + a.authority() + a.prefix
}

func (a address) isSecure() bool { return a.scheme == "https" || a.scheme == "grpcs" }

func (a address) authority() string { return net.JoinHostPort(a.host, a.port) }

func (a address) network() (network, target string) {
	if a.scheme == "unix" {
		return "unix", a.path
	}
	return "tcp", a.authority()
}

func parseAddress(text string) (address, error) {
	if path, is := strings.CutPrefix(text, "unix:"); is {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return address{}, failure(InvalidArgument, "the address %q has no path", text)
		}
		return address{scheme: "unix", path: path}, nil
	}
	parts, err := url.Parse(text)
	if err != nil {
		return address{}, failure(InvalidArgument, "the address %q cannot be read: %s", text, err)
	}
	port, known := defaultPorts[parts.Scheme]
	if !known || parts.Hostname() == "" {
		return address{}, failure(InvalidArgument,
			"the address %q is none of http, https, grpc, grpcs and frame with ://host:port, or unix:/path", text)
	}
	if parts.User != nil || parts.RawQuery != "" || parts.Fragment != "" {
		return address{}, failure(InvalidArgument, "the address %q may have no user, query or fragment: use WithToken", text)
	}
	prefix := strings.TrimRight(parts.EscapedPath(), "/")
	if prefix != "" && parts.Scheme != "http" && parts.Scheme != "https" {
		return address{}, failure(InvalidArgument, "the address %q may have no path", text)
	}
	if parts.Port() != "" {
		port = parts.Port()
	}
	return address{scheme: parts.Scheme, host: parts.Hostname(), port: port, prefix: prefix}, nil
}

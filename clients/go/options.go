package kingpole

// What a client can be told when it is made.

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"time"
)

const defaultMaxFrameBytes = 4 << 30

// Option tells Connect something that is not its default.
type Option func(*options) error

type options struct {
	timeout       time.Duration
	token         string
	trust         *tls.Config
	maxFrameBytes int64
	sharedBytes   int64
	retries       int
}

// WithTimeout sets the timeout of requests that say none themselves. The default is none.
func WithTimeout(timeout time.Duration) Option {
	return func(o *options) error {
		if timeout < 0 {
			return failure(InvalidArgument, "the timeout is %s, it must not be negative", timeout)
		}
		o.timeout = timeout
		return nil
	}
}

// WithToken sends `authorization: Bearer TOKEN` with everything, over HTTP and gRPC.
func WithToken(token string) Option {
	return func(o *options) error {
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }) {
			return failure(InvalidArgument, "the token is empty or has characters that cannot stand in a header")
		}
		o.token = token
		return nil
	}
}

// WithRootCertificates trusts the authorities of a PEM text instead of the system's.
func WithRootCertificates(pem []byte) Option {
	return func(o *options) error {
		authorities := x509.NewCertPool()
		if !authorities.AppendCertsFromPEM(pem) {
			return failure(InvalidArgument, "the root certificates are no PEM of certificates")
		}
		if o.trust == nil {
			o.trust = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		o.trust.RootCAs = authorities
		return nil
	}
}

// WithTLS sets everything about TLS, for example a client certificate.
func WithTLS(trust *tls.Config) Option {
	return func(o *options) error {
		o.trust = trust.Clone()
		return nil
	}
}

// WithMaxFrameBytes limits what is received for one answer. The default is 4 GiB.
func WithMaxFrameBytes(nbytes int64) Option {
	return func(o *options) error {
		if nbytes < 1 {
			return failure(InvalidArgument, "the limit is %d bytes, it must be above 0", nbytes)
		}
		o.maxFrameBytes = nbytes
		return nil
	}
}

// WithSharedMemory shares that many bytes of memory with a server on this machine, over a Unix socket: tensors lie in it and do not
// travel. Responses keep their part of it until Release.
func WithSharedMemory(nbytes int64) Option {
	return func(o *options) error {
		if nbytes < 1 {
			return failure(InvalidArgument, "the shared memory is %d bytes, it must be above 0", nbytes)
		}
		o.sharedBytes = nbytes
		return nil
	}
}

// WithRetries asks again, up to that many times, what certainly did not run: a request that the server refused before queueing it
// and said when to come again, and one that could not be sent because there was no connection. The default is not to.
func WithRetries(retries int) Option {
	return func(o *options) error {
		if retries < 0 {
			return failure(InvalidArgument, "the number of retries is %d, it must not be negative", retries)
		}
		o.retries = retries
		return nil
	}
}

func (o *options) check(where address) error {
	isBare := where.scheme == "frame" || where.scheme == "unix"
	if o.token != "" && isBare {
		return failure(InvalidArgument, "a token cannot travel over %s: use http, https, grpc or grpcs", where)
	}
	if o.sharedBytes > 0 && where.scheme != "unix" {
		return failure(InvalidArgument, "memory is shared over Unix sockets only, not over %s", where)
	}
	return nil
}

// security returns the configuration for a server of this name.
func (o *options) security(where address) *tls.Config {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.trust != nil {
		trust = o.trust.Clone()
	}
	if trust.ServerName == "" {
		trust.ServerName = where.host
	}
	return trust
}

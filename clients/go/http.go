package kingpole

// Frames over HTTP: one POST for each request. Falls back to Open Inference when the server knows no frames.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

const inferPath = "/v1/infer"

var (
	frameHeaders  = map[string]string{"Content-Type": frameMediaType}
	streamHeaders = map[string]string{"Content-Type": frameMediaType, "Accept": streamMediaType}
)

type httpTransport struct {
	pool *httpPool
	// openInference is set once the server has said that it knows no frames.
	openInference atomic.Pointer[openInference]
}

// reply is a whole answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (h *httpTransport) exchange(ctx context.Context, method, path string, headers map[string]string, body net.Buffers) (reply, error) {
	answer, err := h.pool.begin(ctx, method, path, headers, body)
	if err != nil {
		return reply{}, err
	}
	whole, err := answer.whole(h.pool.limit)
	return reply{answer.status, answer.header, whole}, err
}

func (h *httpTransport) infer(ctx context.Context, request *prepared) (*Response, error) {
	if how := h.openInference.Load(); how != nil {
		return h.inferOpen(ctx, how, request)
	}
	buffers, err := request.frame(1, nil)
	if err != nil {
		return nil, err
	}
	answer, err := h.exchange(ctx, http.MethodPost, inferPath, frameHeaders, buffers)
	if err != nil {
		return nil, err
	}
	if !answer.isFrame() && refusesFrames(answer.status) {
		how, err := h.choose(ctx)
		if err != nil {
			return nil, answer.failure()
		}
		h.openInference.Store(how)
		return h.inferOpen(ctx, how, request)
	}
	if !answer.isFrame() {
		if answer.status == http.StatusOK {
			return nil, failure(Internal, "the server answered with something else than a frame")
		}
		return nil, answer.failure()
	}
	frame, err := splitFrame(answer.body, h.pool.limit)
	if err != nil {
		return nil, received(err)
	}
	decoded, err := decodeAnswer(frame, nil)
	return oneResponse(decoded, received(err))
}

// refusesFrames reports whether a status is what servers say to a path or a media type that they do not know.
func refusesFrames(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed ||
		status == http.StatusUnsupportedMediaType || status == http.StatusNotImplemented
}

func (r reply) isFrame() bool {
	return hasMediaType(r.header, frameMediaType) || bytes.HasPrefix(r.body, []byte(frameMagic))
}

func hasMediaType(header http.Header, mediaType string) bool {
	said, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	return strings.TrimSpace(said) == mediaType
}

// choose asks the server who it is, to see how it takes tensors.
func (h *httpTransport) choose(ctx context.Context) (*openInference, error) {
	info, err := h.serverInfo(ctx)
	if err != nil {
		return nil, err
	}
	how := &openInference{}
	for _, extension := range info.Extensions {
		how.isBinary = how.isBinary || extension == "binary_tensor_data" || extension == "binary_data"
	}
	return how, nil
}

func (h *httpTransport) inferOpen(ctx context.Context, how *openInference, request *prepared) (*Response, error) {
	asked, err := how.encode(request)
	if err != nil {
		return nil, err
	}
	answer, err := h.exchange(ctx, http.MethodPost, asked.path, asked.headers, asked.body)
	if err != nil {
		return nil, err
	}
	return decodeOpenInference(answer)
}

// httpSource is the answer to one request as it comes, on a connection lent for it.
type httpSource struct {
	answer    *httpAnswer
	assembler *assembler
	scratch   []byte
	frames    []*frame
	isStream  bool
}

func (h *httpTransport) stream(ctx context.Context, request *prepared) (source, error) {
	if h.openInference.Load() != nil {
		return nil, errNotFrames()
	}
	buffers, err := request.frame(1, nil)
	if err != nil {
		return nil, err
	}
	answer, err := h.pool.begin(ctx, http.MethodPost, inferPath, streamHeaders, buffers)
	if err != nil {
		return nil, err
	}
	opened := &httpSource{answer: answer, assembler: newAssembler(h.pool.limit), scratch: make([]byte, readBytes)}
	if answer.status == http.StatusOK && hasMediaType(answer.header, streamMediaType) {
		opened.isStream = true
		return opened, nil
	}
	body, err := answer.whole(h.pool.limit)
	if err != nil {
		return nil, err
	}
	whole := reply{answer.status, answer.header, body}
	if !whole.isFrame() {
		if refusesFrames(whole.status) || whole.status == http.StatusOK {
			return nil, errNotFrames()
		}
		return nil, whole.failure()
	}
	only, err := splitFrame(body, h.pool.limit)
	opened.frames = []*frame{only}
	return opened, received(err)
}

func errNotFrames() error {
	return failure(Unimplemented, "this server takes no frames, and so gives one response to a request at most: use Infer")
}

func (s *httpSource) next() (*frame, error) {
	for len(s.frames) == 0 {
		if !s.isStream {
			return nil, failure(Unavailable, "the server ended its answer before the last response")
		}
		nbytes, err := s.answer.body.Read(s.scratch)
		refused := s.assembler.feed(s.scratch[:nbytes], func(whole *frame) error {
			s.frames = append(s.frames, whole)
			return nil
		})
		if refused != nil {
			return nil, received(refused)
		}
		if err != nil && len(s.frames) == 0 {
			return nil, s.answer.translated(err)
		}
	}
	first := s.frames[0]
	s.frames = s.frames[1:]
	return first, nil
}

func (s *httpSource) end(isEnded bool) {
	if !s.isStream {
		return
	}
	if isEnded {
		// The end of the chunks, so that the connection can be used again.
		nbytes, err := s.answer.body.Read(s.scratch)
		isEnded = nbytes == 0 && err != nil && s.assembler.idle() && errors.Is(err, io.EOF)
	}
	s.answer.end(isEnded)
}

package kingpole

// The calls that travel as Open Inference over HTTP whatever the server knows: live, ready, metadata, server info.

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func modelPath(model, version string) string {
	path := "/v2/models/" + url.PathEscape(model)
	if version != "" {
		path += "/versions/" + url.PathEscape(version)
	}
	return path
}

// failure makes the error of an answer that is no frame and whose status is not 200; the text is the server's, at most 8 KiB.
func (r reply) failure() *Error {
	text := strings.ToValidUTF8(strings.TrimSpace(string(r.body[:min(len(r.body), maxErrorBytes)])), "\uFFFD")
	var document struct {
		Error string `json:"error"`
		// Servers made with FastAPI say `detail` for what they refuse themselves.
		Detail string `json:"detail"`
	}
	if json.Unmarshal(r.body, &document) == nil {
		if document.Error != "" {
			text = document.Error
		} else if document.Detail != "" {
			text = document.Detail
		}
	}
	if text == "" {
		text = "HTTP status " + strconv.Itoa(r.status)
	}
	failed := &Error{Code: codeOfStatus(r.status), Message: text}
	if seconds, err := strconv.ParseUint(r.header.Get("Retry-After"), 10, 24); err == nil {
		failed.RetryAfter = time.Duration(seconds) * time.Second
	}
	return failed
}

func (h *httpTransport) get(ctx context.Context, path string) (reply, error) {
	return h.exchange(ctx, http.MethodGet, path, nil, nil)
}

func (h *httpTransport) isReady(ctx context.Context, path string) (bool, error) {
	answer, err := h.get(ctx, path)
	if err != nil || answer.status == http.StatusOK {
		return err == nil, err
	}
	failed := answer.failure()
	// Triton says 400 for a model that is there and not ready.
	if answer.status == http.StatusBadRequest || answer.status == http.StatusServiceUnavailable {
		return false, nil
	}
	return false, failed
}

func (h *httpTransport) live(ctx context.Context) (bool, error) {
	return h.isReady(ctx, "/v2/health/live")
}

func (h *httpTransport) ready(ctx context.Context, model, version string) (bool, error) {
	if model == "" {
		return h.isReady(ctx, "/v2/health/ready")
	}
	return h.isReady(ctx, modelPath(model, version)+"/ready")
}

func (h *httpTransport) read(ctx context.Context, path string, into any) error {
	answer, err := h.get(ctx, path)
	if err != nil {
		return err
	}
	if answer.status != http.StatusOK {
		return answer.failure()
	}
	return readJSON(answer.body, into)
}

func (h *httpTransport) serverInfo(ctx context.Context) (*ServerInfo, error) {
	var document struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}
	if err := h.read(ctx, "/v2", &document); err != nil {
		return nil, err
	}
	return &ServerInfo{Name: document.Name, Version: document.Version, Extensions: document.Extensions}, nil
}

type jsonSpec struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
	Optional bool    `json:"optional"`
}

func (h *httpTransport) metadata(ctx context.Context, model, version string) (*ModelMetadata, error) {
	var document struct {
		Name     string     `json:"name"`
		Versions []string   `json:"versions"`
		Platform string     `json:"platform"`
		Inputs   []jsonSpec `json:"inputs"`
		Outputs  []jsonSpec `json:"outputs"`
	}
	if err := h.read(ctx, modelPath(model, version), &document); err != nil {
		return nil, err
	}
	metadata := &ModelMetadata{Name: document.Name, Versions: document.Versions, Platform: document.Platform}
	var err error
	if metadata.Inputs, err = specsOf(document.Inputs); err == nil {
		metadata.Outputs, err = specsOf(document.Outputs)
	}
	return metadata, err
}

func specsOf(said []jsonSpec) ([]TensorSpec, error) {
	specs := make([]TensorSpec, 0, len(said))
	for _, each := range said {
		datatype, err := DatatypeOf(each.Datatype)
		if err != nil {
			return nil, failure(Internal, "tensor '%s': unknown datatype %.40q", each.Name, each.Datatype)
		}
		specs = append(specs, TensorSpec{each.Name, datatype, each.Shape, each.Optional})
	}
	return specs, nil
}

package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Rule says which requests a fault befalls. Of several that match the oldest is taken.
//
// The faults, with the fields they use; bodies are counted as HTTP carries them, without its chunking:
//
//	status        answers Status with an S3 error (Code, Message, RetryAfter) and forwards nothing; ReadBody first
//	error_in_200  the same under status 200, after reading the request's body
//	no_copy       501 NotImplemented to every UploadPartCopy
//	no_checksums  400 InvalidRequest to every request that carries a checksum of the S3 kind
//	delay         waits Seconds before forwarding
//	reset_up      resets the client's connection, and cuts the server's, once At bytes of the request have come
//	stall_up      reads no more of the request after At bytes until Seconds are over, the client has left, or the rule
//	              is taken back; then goes on. A client that leaves more behind than fits into the socket is not seen.
//	flip_up       inverts the byte at At of the request's body
//	lost_response resets the client's connection when the server has answered in full
//	reset_down    resets the client's connection after At bytes of the response's body
//	stall_down    as stall_up, for the response; an At of -1 is before its headers
//	flip_down     inverts the byte at At of the response's body
//	short_body    closes the client's connection, in good order, after At bytes of the response's body
//
// A body shorter than At is left alone.
type Rule struct {
	Fault       string  `json:"fault"`
	Operation   string  `json:"operation"`    // "" is any
	KeyContains string  `json:"key_contains"` // "" is any
	Skip        int     `json:"skip"`         // so many matching requests pass first
	Times       int     `json:"times"`        // then so many are hit, 0 is all
	At          int64   `json:"at"`
	Seconds     float64 `json:"seconds"`
	Status      int     `json:"status"`
	Code        string  `json:"code"`
	Message     string  `json:"message"`
	RetryAfter  string  `json:"retry_after"` // as the header has it; "" is none
	ReadBody    bool    `json:"read_body"`

	id      int
	matched int
	cleared chan struct{}
}

var faults = []string{
	"status", "error_in_200", "no_copy", "no_checksums", "delay", "reset_up", "stall_up", "flip_up", "lost_response",
	"reset_down", "stall_down", "flip_down", "short_body",
}

// codes are what S3 says with a status when a rule does not.
var codes = map[int]string{
	http.StatusBadRequest:          "InvalidRequest",
	http.StatusForbidden:           "AccessDenied",
	http.StatusConflict:            "ConditionalRequestConflict",
	http.StatusPreconditionFailed:  "PreconditionFailed",
	http.StatusTooManyRequests:     "TooManyRequests",
	http.StatusInternalServerError: "InternalError",
	http.StatusNotImplemented:      "NotImplemented",
	http.StatusServiceUnavailable:  "SlowDown",
}

// complete checks a rule and fills in what its fault implies.
func (r *Rule) complete() error {
	if !slices.Contains(faults, r.Fault) {
		return fmt.Errorf("unknown fault %q, there are %v", r.Fault, faults)
	}
	switch r.Fault {
	case "error_in_200":
		r.Status, r.ReadBody = http.StatusOK, true
		if r.Code == "" {
			r.Code = "InternalError"
		}
	case "no_copy":
		r.Operation, r.Status = "UploadPartCopy", http.StatusNotImplemented
	case "no_checksums":
		r.Status = http.StatusBadRequest
	case "status":
		if r.Status < 200 || r.Status > 599 {
			return fmt.Errorf("%d is no status to answer with", r.Status)
		}
	}
	if r.Code == "" {
		r.Code = codes[r.Status]
	}
	return nil
}

// hits tells whether the fault befalls this request, and counts those that match.
func (r *Rule) hits(request *http.Request, operation, key string) bool {
	if r.Operation != "" && r.Operation != operation || !strings.Contains(key, r.KeyContains) {
		return false
	}
	if r.Fault == "no_checksums" && !carriesChecksum(request) {
		return false
	}
	r.matched++
	return r.matched > r.Skip && (r.Times == 0 || r.matched <= r.Skip+r.Times)
}

func carriesChecksum(request *http.Request) bool {
	isChecksum := func(name string) bool {
		name = strings.ToLower(name)
		return strings.HasPrefix(name, "x-amz-checksum-") || name == "x-amz-sdk-checksum-algorithm" || name == "x-amz-trailer"
	}
	for name := range request.Header {
		if isChecksum(name) {
			return true
		}
	}
	for name := range request.URL.Query() {
		if isChecksum(name) {
			return true
		}
	}
	return false
}

package object

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Code names a kind of failure. Codes are public (StorageError.code): add, never rename.
type Code string

// The kinds of failure.
const (
	NotFound    Code = "not_found"
	Exists      Code = "exists"
	InvalidKey  Code = "invalid_key"
	Mismatch    Code = "mismatch"
	Permission  Code = "permission"
	Full        Code = "full"
	Timeout     Code = "timeout"
	Unavailable Code = "unavailable"
	Cancelled   Code = "cancelled"
	Conflict    Code = "conflict"
	Bucket      Code = "bucket"
	Refused     Code = "refused"
	Closed      Code = "closed"
	Config      Code = "config"
	IO          Code = "io"
	Internal    Code = "internal"
)

// Error is the only error type that leaves the Go side. Its Message never holds a secret or a path of the server.
type Error struct {
	Code      Code
	Op, Key   string
	Status    int
	RequestID string
	Retryable bool
	Message   string
	Said      string // the store's own word for it; it stays on the Go side
}

func (e *Error) Error() string { return e.Message }

// Is lets errors.Is compare kinds: errors.Is(err, &Error{Code: NotFound}).
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// Errorf makes an Error of a kind.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Retryablef is Errorf for what may succeed when it is tried again.
func Retryablef(code Code, format string, args ...any) *Error {
	failed := Errorf(code, format, args...)
	failed.Retryable = true
	return failed
}

// Retryable tells whether the same call may succeed another time.
func Retryable(err error) bool {
	known, ok := errors.AsType[*Error](err)
	return ok && known.Retryable
}

// Rescue, deferred in a goroutine, turns its panic into an error. Nobody else can, and the panic would end Python.
func Rescue(err *error) {
	if r := recover(); r != nil {
		*err = Panicked(r)
	}
}

// Panicked is the error for a panic. The stack stays on the Go side, since it holds paths.
func Panicked(r any) error {
	return Errorf(Internal, "a defect of the storage extension: panic: %v", r)
}

// CodeOf tells the kind of err, or "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return asError(err).Code
}

// Wire gives err the one form in which errors cross to Python. storage.exceptions.from_wire reads it there.
func Wire(op, key string, err error) error {
	e := *asError(err)
	if e.Op == "" {
		e.Op = op
	}
	if e.Key == "" {
		e.Key = key
	}
	fields := []string{
		"E1", string(e.Code), e.Op, e.Key, strconv.Itoa(e.Status), e.RequestID, "0", e.Message,
	}
	if e.Retryable {
		fields[6] = "1"
	}
	for i, field := range fields {
		fields[i] = url.PathEscape(strings.ToValidUTF8(field, "\uFFFD"))
	}
	return errors.New(strings.Join(fields, "|"))
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return Errorf(Cancelled, "the operation was cancelled")
	}
	// An error that no driver classified may hold a path: only its type is told.
	return Errorf(Internal, "unexpected error of type %T", err)
}

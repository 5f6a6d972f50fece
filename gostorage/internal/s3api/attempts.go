package s3api

import (
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// request is what one operation tells the layers below it, and what they tell the operation.
type request struct {
	hash     string // SHA-256 of the payload, in hex, or a word of Signature Version 4 for it
	body     [][]byte
	hasBody  bool          // body is what is sent, even if empty; else the SDK makes the body from the input
	md5      bool          // the body needs a Content-MD5
	patience time.Duration // how long the server may work before it answers, if longer than usual
	began    time.Time
	attempts int
}

// attempts makes the requests that the SDK has given their form: it signs and sends them, and sends them again if that
// helps.
type attempts struct {
	transport   *httpconn.Client
	signer      *v4.Signer
	credentials *awsconfig.Credentials
	region      string
	endpoint    *url.URL
	retryer     aws.RetryerV2
	skew        atomic.Int64 // how far the server's clock is ahead, in nanoseconds, if the server minds
	ahead       atomic.Int64 // the same, as of its last answer
	md5         atomic.Bool  // puts without a checksum need a Content-MD5: the bucket locks objects
}

// send sends a request until its answer is understood, or until sending it again is of no use.
func (a *attempts) send(
	ctx context.Context, about *request, prepared *smithyhttp.Request, understand func(context.Context, *http.Response) error,
) error {
	body, err := a.complete(about, prepared)
	if err != nil {
		return err
	}
	for tried := 1; ; tried++ {
		err := a.once(ctx, about, prepared.Request, body, understand)
		if wantsMD5(err) && prepared.Header.Get(md5Header) == "" {
			a.md5.Store(true)
			a.addMD5(prepared, body)
			continue
		}
		if err == nil || ctx.Err() != nil || isOnce(ctx) || tried >= a.retryer.MaxAttempts() || time.Since(about.began) > retryBudget ||
			!a.worthwhile(err, tried) || wait(ctx, a.delay(tried, err)) != nil {
			return err
		}
	}
}

type onceKey struct{}

// Once gives a context whose requests are not sent again: a refusal is an answer.
func Once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

func isOnce(ctx context.Context) bool { return ctx.Value(onceKey{}) != nil }

// agent names this client to servers.
var agent = []string{"django-gostorage"}

// announced in bytes: a body of at least this size, which the server may refuse because of what is there already, is
// sent once the server says that it wants it. A smaller body is not worth the time of an answer.
const announced = 1 << 20

var expect = []string{"100-continue"}

// nothing is the SHA-256 of no bytes.
const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// complete gives a request its host and all headers but those of the signature.
func (a *attempts) complete(about *request, prepared *smithyhttp.Request) (body [][]byte, err error) {
	leadTo(prepared.URL, a.endpoint)
	headers := prepared.Header
	headers["User-Agent"] = agent
	hash := about.hash
	switch stream := prepared.GetStream(); {
	case about.hasBody:
		body, prepared.ContentLength = about.body, sizeOf(about.body)
		if prepared.ContentLength >= announced && headers.Get("If-None-Match") != "" {
			headers["Expect"] = expect
		}
	case stream != nil:
		text, err := io.ReadAll(stream)
		if err != nil {
			return nil, err
		}
		body, prepared.ContentLength = [][]byte{text}, int64(len(text))
	default:
		prepared.ContentLength = 0
	}
	switch {
	case hash != "":
	case prepared.ContentLength == 0:
		hash = nothing
	default:
		hash = hashOf(body)
	}
	headers[payloadHeader] = []string{hash}
	// S3 always wants a checksum for one request. It gets the one that every store knows.
	if about.md5 || a.md5.Load() && prepared.Method == http.MethodPut && headers.Get("X-Amz-Copy-Source") == "" && !summed(headers) {
		a.addMD5(prepared, body)
	}
	return body, nil
}

// leadTo gives the URL of a request the endpoint of the bucket.
func leadTo(to, endpoint *url.URL) {
	if endpoint.RawPath == "" && to.RawPath != "" {
		to.RawPath = smithyhttp.JoinPath(endpoint.EscapedPath(), to.RawPath)
	}
	to.Scheme, to.Host, to.Path = endpoint.Scheme, endpoint.Host, smithyhttp.JoinPath(endpoint.Path, to.Path)
}

func sizeOf(body [][]byte) (size int64) {
	for _, piece := range body {
		size += int64(len(piece))
	}
	return size
}

func hashOf(body [][]byte) string {
	sum := sha256.New()
	for _, piece := range body {
		sum.Write(piece)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

const md5Header = "Content-Md5"

func (a *attempts) addMD5(prepared *smithyhttp.Request, body [][]byte) {
	sum := md5.New()
	for _, piece := range body {
		sum.Write(piece)
	}
	prepared.Header[md5Header] = []string{base64Of(sum.Sum(nil))}
}

// summed tells whether a request carries one of S3's checksums.
func summed(headers http.Header) bool {
	for name := range headers {
		if strings.HasPrefix(name, "X-Amz-Checksum-") {
			return true
		}
	}
	return false
}

// wantsMD5 tells whether a bucket that locks objects has refused a put for the lack of a checksum.
func wantsMD5(err error) bool {
	refused, ok := errors.AsType[smithy.APIError](err)
	return ok && strings.Contains(strings.ToLower(refused.ErrorMessage()), "content-md5") &&
		codes[refused.ErrorCode()].kind != object.Mismatch
}

const payloadHeader = "X-Amz-Content-Sha256"

// once makes one attempt. If the store refuses credentials of an issuer, it makes another one with other credentials.
func (a *attempts) once(
	ctx context.Context, about *request, request *http.Request, body [][]byte,
	understand func(context.Context, *http.Response) error,
) error {
	err := a.try(ctx, about, request, body, understand)
	stale, ok := errors.AsType[*staleError](err)
	if !ok || ctx.Err() != nil {
		return err
	}
	others, failed := a.credentials.Renew(ctx, stale.refused)
	if failed != nil || !others {
		return cmp.Or(failed, err)
	}
	return a.try(ctx, about, request, body, understand)
}

func (a *attempts) try(
	ctx context.Context, about *request, request *http.Request, body [][]byte,
	understand func(context.Context, *http.Response) error,
) error {
	about.attempts++
	identity, err := a.credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	applied := a.skew.Load()
	now := time.Now().Add(time.Duration(applied))
	if err := a.signer.SignHTTP(ctx, identity, request, request.Header[payloadHeader][0], "s3", a.region, now, asItIs); err != nil {
		return err
	}
	response, err := a.transport.Do(ctx, httpconn.Request{
		Head: request, Body: body, Patience: about.patience, Repeated: func() { about.attempts++ },
	})
	if err != nil {
		if ctx.Err() != nil {
			return &smithy.CanceledError{Err: ctx.Err()}
		}
		if no, ok := errors.AsType[*httpconn.ProtocolError](err); ok {
			err = strange("%s", no.Why)
		}
		return &smithyhttp.RequestSendError{Err: err}
	}
	clock, clocked := http.ParseTime(response.Header.Get("Date"))
	skew := int64(time.Until(clock))
	if clocked == nil {
		a.ahead.Store(skew)
	}
	err = understand(ctx, response)
	if err != nil && a.credentials.Issued && stale(response, err) {
		return &staleError{err, identity}
	}
	if err != nil && clocked == nil && response.StatusCode == http.StatusForbidden &&
		time.Duration(skew-applied).Abs() > mostDrift {
		a.skew.Store(skew) // the next attempt is signed by the server's clock
		return &skewedError{err}
	}
	return err
}

// mostDrift is how far clocks may be apart without being a reason to refuse a request; S3 bears 15 minutes.
const mostDrift = 5 * time.Minute

// skewedError is an error that may be about the clock that a request was signed by.
type skewedError struct{ error }

func (e *skewedError) Unwrap() error { return e.error }

// asItIs: S3 signs a path as it is sent.
func asItIs(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }

// wait lets some time pass, unless ctx ends before.
func wait(ctx context.Context, delay time.Duration) error {
	_, err := task.Aside(ctx, func(ctx context.Context) (struct{}, error) {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return struct{}{}, context.Cause(ctx)
		case <-timer.C:
			return struct{}{}, nil
		}
	}, nil)
	return err
}

// Pause waits before a commit, or the like, is tried again. attempts is how often it was tried.
func Pause(ctx context.Context, attempts int) error { return wait(ctx, 50*time.Millisecond<<attempts) }

package s3api

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// always is more than the attempts that any operation makes.
const always = 1 << 30

// retries say which failed attempts are followed by another one, and by how many at most, within MaxAttempts and
// retryBudget. The first entry that fits counts; of an error that none fits the SDK decides: SlowDown, 500, 503, timeouts,
// lost connections ...
var retries = []struct {
	fits func(error) bool
	most int
}{
	{is[*strangeError], 1},               // an endpoint that does not answer like S3
	{is[*awsconfig.CredentialsError], 0}, // their issuer was asked again
	{is[*skewedError], always},           // signed by the server's clock the next time
	{corruptedBody, always},              // what we sent was changed on the way
	{brokenSuccess, always},              // an answer that was cut short
	{hopeless, 0},                        // no other attempt cures it, though the SDK would try
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// worthwhile tells whether another attempt may succeed after tried attempts.
func (a *attempts) worthwhile(err error, tried int) bool {
	for _, retry := range retries {
		if retry.fits(err) {
			return tried <= retry.most
		}
	}
	return a.retryer.IsErrorRetryable(err)
}

// hopeless tells whether no other attempt cures an error, though the SDK would try.
func hopeless(err error) bool {
	if refused, ok := errors.AsType[httpconn.ProxyError](err); ok && refused < http.StatusInternalServerError {
		return true
	}
	return certificate(err) || strings.Contains(err.Error(), "HTTP response to HTTPS")
}

// corruptedBody tells whether what we sent was changed on the way. It is in memory, and is sent again.
func corruptedBody(err error) bool {
	refused, ok := errors.AsType[smithy.APIError](err)
	return ok && codes[refused.ErrorCode()].kind == object.Mismatch
}

// brokenSuccess tells whether the answer of a success was cut short, or is not one of S3.
func brokenSuccess(err error) bool {
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	return ok && response.HTTPStatusCode()/100 == 2
}

const (
	maxBackoff = 5 * time.Second
	// retryBudget bounds how long an operation goes on trying; the attempt under way may last a stall timer longer.
	retryBudget = 60 * time.Second
)

// delay is how long to wait before the next attempt: the SDK's delay, or what the server asks for.
func (a *attempts) delay(tried int, err error) time.Duration {
	delay, failed := a.retryer.RetryDelay(tried, err)
	if failed != nil {
		delay = maxBackoff
	}
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		if asked, err := time.ParseDuration(response.Response.Header.Get("Retry-After") + "s"); err == nil {
			delay = min(max(delay, asked), 2*maxBackoff)
		}
	}
	return delay
}

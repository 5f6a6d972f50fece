package s3api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
)

// Identity tells for whom requests are signed.
type Identity struct {
	AccessKey string
	Source    string    // of the credentials, in a word of the SDK
	Expires   time.Time // or zero
}

// Credentials finds the credentials of the next request.
func (b *Bucket) Credentials(ctx context.Context) (Identity, error) {
	found, err := b.client.credentials.Retrieve(ctx)
	if err != nil {
		return Identity{}, classify(err)
	}
	source, _, _ := strings.Cut(found.Source, ":") // what follows may be a path
	identity := Identity{AccessKey: found.AccessKeyID, Source: source}
	if found.CanExpire {
		identity.Expires = found.Expires.UTC()
	}
	return identity, nil
}

// staleError is the error of a store that refuses credentials from an issuer, who may issue others.
type staleError struct {
	error
	refused aws.Credentials
}

func (e *staleError) Unwrap() error { return e.error }

// ended are the codes for credentials that have ended before the time that they tell themselves.
var ended = map[string]bool{"ExpiredToken": true, "ExpiredTokenException": true, "TokenRefreshRequired": true}

// stale tells whether an answer may be about credentials that are no longer valid. An answer to HEAD has no code.
func stale(response *http.Response, err error) bool {
	if response.Request.Method == http.MethodHead {
		return response.StatusCode == http.StatusBadRequest
	}
	refused, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	switch code := refused.ErrorCode(); code {
	case "InvalidToken", "InvalidTokenId", "InvalidClientTokenId", "InvalidAccessKeyId":
		return true
	default:
		return ended[code]
	}
}

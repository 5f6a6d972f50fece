package awsconfig

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

const (
	// renewedBefore they end, others are asked for.
	renewedBefore = 5 * time.Minute
	// issuerTime is for an issuer of credentials to answer, and issuerAttempts how often it is asked.
	issuerTime     = 20 * time.Second
	issuerAttempts = 2
	// issuerRest is how long an issuer that does not answer is left alone while there are credentials that hold.
	issuerRest = 30 * time.Second
)

// Credentials gives the credentials of a client, and has those renewed that somebody issues.
type Credentials struct {
	source *aws.CredentialsCache
	Issued bool // by somebody who may give others
	known  atomic.Pointer[kept]
}

// kept are credentials, with the times that hold for those that expire.
type kept struct {
	aws.Credentials
	renewal, end time.Time
}

func keep(source aws.CredentialsProvider) *Credentials {
	cache, ok := source.(*aws.CredentialsCache)
	if !ok {
		cache = aws.NewCredentialsCache(source)
	}
	return &Credentials{source: cache, Issued: !aws.IsCredentialsProvider(cache, credentials.StaticCredentialsProvider{})}
}

// Retrieve implements aws.CredentialsProvider.
func (k *Credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	known := k.known.Load()
	if known != nil && (!known.CanExpire || time.Now().Before(known.renewal)) {
		return known.Credentials, nil
	}
	found, err := k.ask(ctx)
	if err != nil && ctx.Err() == nil && known != nil && time.Now().Before(known.end) {
		again := *known
		again.renewal = time.Now().Add(issuerRest)
		k.known.Store(&again)
		return known.Credentials, nil
	}
	return found, err
}

// Renew asks for others than those that the store has refused, and tells whether there are.
func (k *Credentials) Renew(ctx context.Context, refused aws.Credentials) (bool, error) {
	found := k.known.Load().Credentials
	if sameKeys(found, refused) {
		k.source.Invalidate()
		var err error
		if found, err = k.ask(ctx); err != nil {
			return false, err
		}
	}
	return !sameKeys(found, refused), nil
}

func sameKeys(a, b aws.Credentials) bool {
	return a.AccessKeyID == b.AccessKeyID && a.SecretAccessKey == b.SecretAccessKey && a.SessionToken == b.SessionToken
}

// ask has the SDK find credentials, and keeps them.
func (k *Credentials) ask(ctx context.Context) (aws.Credentials, error) {
	found, err := task.Aside(ctx, k.source.Retrieve, nil)
	if err != nil {
		return found, &CredentialsError{err, k}
	}
	k.known.Store(&kept{Credentials: found, renewal: found.Expires, end: found.Expires.Add(renewedBefore)})
	return found, nil
}

// issuers are those who issue credentials, in words.
var issuers = map[aws.CredentialSource]string{
	aws.CredentialSourceHTTP:                 "container",
	aws.CredentialSourceIMDS:                 "instance",
	aws.CredentialSourceEnvVarsSTSWebIDToken: "web identity",
	aws.CredentialSourceProfileSTSWebIDToken: "web identity",
	aws.CredentialSourceSTSAssumeRole:        "role",
	aws.CredentialSourceSSO:                  "single sign-on",
	aws.CredentialSourceSSOLegacy:            "single sign-on",
	aws.CredentialSourceLogin:                "sign-in",
	aws.CredentialSourceProcess:              "process",
}

// issuer names whom the credentials are of. What is asked last, the instance, is none that anybody has named.
func (k *Credentials) issuer() (name string, named bool) {
	sources := k.source.ProviderSources()
	for _, source := range sources {
		if word, ok := issuers[source]; ok {
			name = word
		}
	}
	return name, len(sources) > 1 || len(sources) == 1 && sources[0] != aws.CredentialSourceIMDS
}

// CredentialsError says that no credentials were found.
type CredentialsError struct {
	err  error
	from *Credentials
}

func (e *CredentialsError) Error() string { return e.err.Error() }

func (e *CredentialsError) Unwrap() error { return e.err }

// GiveCredentials is what to do where there are none.
const GiveCredentials = "set access_key and secret_key, or provide them by the environment, a profile or a role"

// Told is the error for a caller. What the SDK says of it may hold paths.
func (e *CredentialsError) Told() error {
	issuer, named := e.from.issuer()
	named = named || e.from.known.Load() != nil
	status := 0
	if answered, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](e.err); ok {
		status = answered.HTTPStatusCode()
	}
	// The SDK tells of a file with a token in words alone.
	if none := cmp.Or(starved(e.err), descriptorLeft()); none != nil {
		return none
	}
	switch {
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests || named && e.silent(status):
		return object.Retryablef(object.Unavailable,
			"the issuer of the temporary credentials (%s) does not answer, or by an error: try again later", issuer)
	case named && status != 0:
		return object.Errorf(object.Permission,
			"the issuer of the temporary credentials (%s) refuses them: it answers %d", issuer, status)
	case named:
		return object.Errorf(object.Permission,
			"the issuer of the temporary credentials (%s) gives none: check what the environment or the profile says of it", issuer)
	default:
		return object.Errorf(object.Permission, "no credentials were found: %s", GiveCredentials)
	}
}

// silent tells that an issuer gives no answer that means anything.
func (e *CredentialsError) silent(status int) bool {
	if status != 0 && status != http.StatusOK {
		return false
	}
	_, unsent := errors.AsType[*smithyhttp.RequestSendError](e.err)
	_, failed := errors.AsType[net.Error](e.err)
	_, garbled := errors.AsType[*smithy.DeserializationError](e.err)
	return unsent || failed || garbled
}

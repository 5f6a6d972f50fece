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
	// renewedBefore is how long before their end credentials are renewed.
	renewedBefore = 5 * time.Minute
	// issuerTime is the time for an issuer of credentials to answer, and issuerAttempts how often it is asked.
	issuerTime     = 20 * time.Second
	issuerAttempts = 2
	// issuerRest is how long an issuer that does not answer is left alone while the known credentials are valid.
	issuerRest = 30 * time.Second
)

// Credentials gives the credentials of a client, and renews those that come from an issuer.
type Credentials struct {
	source *aws.CredentialsCache
	Issued bool // they come from an issuer, who may give others
	known  atomic.Pointer[kept]
}

// kept are credentials, with the times of their renewal and end if they expire.
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

// Renew asks for new credentials after the store has refused some, and tells whether there are others.
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

// ask lets the SDK find credentials, and keeps them.
func (k *Credentials) ask(ctx context.Context) (aws.Credentials, error) {
	found, err := task.Aside(ctx, k.source.Retrieve, nil)
	if err != nil {
		return found, &CredentialsError{err, k}
	}
	k.known.Store(&kept{Credentials: found, renewal: found.Expires, end: found.Expires.Add(renewedBefore)})
	return found, nil
}

// issuers has a word for each source that issues credentials.
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

// issuer names who gives the credentials. named tells whether somebody has configured that: the instance, which the
// chain asks last, needs no configuration.
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

// GiveCredentials says what to do if there are no credentials.
const GiveCredentials = "set access_key and secret_key, or provide them by the environment, a profile or a role"

// Told gives the error for a caller. The SDK's own text may hold paths.
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
	// For a file with a token, the SDK's error is only a text.
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

// silent tells whether an issuer gave no answer that means anything.
func (e *CredentialsError) silent(status int) bool {
	if status != 0 && status != http.StatusOK {
		return false
	}
	_, unsent := errors.AsType[*smithyhttp.RequestSendError](e.err)
	_, failed := errors.AsType[net.Error](e.err)
	_, garbled := errors.AsType[*smithy.DeserializationError](e.err)
	return unsent || failed || garbled
}

package s3

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	smithyauth "github.com/aws/smithy-go/auth"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// api is what we ask of the SDK.
type api interface {
	PutObject(context.Context, *sdk.PutObjectInput, ...func(*sdk.Options)) (*sdk.PutObjectOutput, error)
	GetObject(context.Context, *sdk.GetObjectInput, ...func(*sdk.Options)) (*sdk.GetObjectOutput, error)
	HeadObject(context.Context, *sdk.HeadObjectInput, ...func(*sdk.Options)) (*sdk.HeadObjectOutput, error)
	DeleteObject(context.Context, *sdk.DeleteObjectInput, ...func(*sdk.Options)) (*sdk.DeleteObjectOutput, error)
	DeleteObjects(context.Context, *sdk.DeleteObjectsInput, ...func(*sdk.Options)) (*sdk.DeleteObjectsOutput, error)
	ListObjectsV2(context.Context, *sdk.ListObjectsV2Input, ...func(*sdk.Options)) (*sdk.ListObjectsV2Output, error)
	CreateMultipartUpload(context.Context, *sdk.CreateMultipartUploadInput, ...func(*sdk.Options)) (*sdk.CreateMultipartUploadOutput, error)
	UploadPart(context.Context, *sdk.UploadPartInput, ...func(*sdk.Options)) (*sdk.UploadPartOutput, error)
	CompleteMultipartUpload(context.Context, *sdk.CompleteMultipartUploadInput, ...func(*sdk.Options)) (*sdk.CompleteMultipartUploadOutput, error)
	AbortMultipartUpload(context.Context, *sdk.AbortMultipartUploadInput, ...func(*sdk.Options)) (*sdk.AbortMultipartUploadOutput, error)
	ListMultipartUploads(context.Context, *sdk.ListMultipartUploadsInput, ...func(*sdk.Options)) (*sdk.ListMultipartUploadsOutput, error)
	ListParts(context.Context, *sdk.ListPartsInput, ...func(*sdk.Options)) (*sdk.ListPartsOutput, error)
}

// client is one SDK client with its connections, shared by all stores of one configuration. It goes when the last
// store and the last operation have let go of it.
type client struct {
	api
	connections *http.Transport
	key         string
	users       int
	closed      bool
}

var clients = struct {
	mu    sync.Mutex
	known map[string]*client
}{known: map[string]*client{}}

// share gives the client of a configuration.
func share(c connection) (*client, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	key := string(text)
	clients.mu.Lock()
	defer clients.mu.Unlock()
	if known, ok := clients.known[key]; ok {
		known.users++
		return known, nil
	}
	made, err := connect(c)
	if err != nil {
		return nil, err
	}
	made.key, made.users = key, 1
	clients.known[key] = made
	return made, nil
}

func (c *client) hold() {
	clients.mu.Lock()
	c.users++
	clients.mu.Unlock()
}

func (c *client) release() {
	clients.mu.Lock()
	c.users--
	last := c.users == 0
	if last {
		delete(clients.known, c.key)
	}
	clients.mu.Unlock()
	if last && c.connections != nil {
		c.connections.CloseIdleConnections()
	}
}

func connect(c connection) (*client, error) {
	setEnvironment(c.Environment)
	secure, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	through := transport(secure, nil, seconds(c.ConnectTimeout), seconds(c.ReadTimeout), c.Idle)
	plain := &http.Client{Transport: through, CheckRedirect: stay}
	ctx := context.Background()
	credentials, region, err := c.identity(ctx, plain)
	if err != nil {
		return nil, err
	}
	endpoint, err := c.endpoint(ctx, region)
	if err != nil {
		return nil, err
	}
	if through.Proxy, err = c.proxy(&endpoint.URI); err != nil {
		return nil, err
	}
	retries := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = c.MaxAttempts
		o.MaxBackoff = maxBackoff
		o.RateLimiter = noLimit{}
	})
	made := sdk.New(sdk.Options{
		Region:                       region,
		Credentials:                  credentials,
		HTTPClient:                   doer{plain},
		EndpointResolverV2:           endpoint,
		AuthSchemeResolver:           signature{region},
		Retryer:                      retries,
		RequestChecksumCalculation:   aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:   aws.ResponseChecksumValidationWhenRequired,
		ContinueHeaderThresholdBytes: 1 << 20,
		APIOptions:                   []func(*middleware.Stack) error{trim},
	})
	return &client{api: made, connections: through}, nil
}

// stay follows no redirect: a signature is for one host.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// signature is the one way in which we sign.
type signature struct{ region string }

func (s signature) ResolveAuthSchemes(context.Context, *sdk.AuthResolverParameters) ([]*smithyauth.Option, error) {
	option := &smithyauth.Option{SchemeID: smithyauth.SchemeIDSigV4}
	smithyhttp.SetSigV4SigningName(&option.SignerProperties, "s3")
	smithyhttp.SetSigV4SigningRegion(&option.SignerProperties, s.region)
	return []*smithyauth.Option{option}, nil
}

// needless are the SDK's steps that a fixed endpoint, checksums of our own and one HTTP client leave nothing to do.
var needless = []string{
	"AWSChecksum:SetupInputContext", "AWSChecksum:SetupOutputContext", "S3Shared:ARNLookup",
	"ResolveEndpoint", "S3:ProcessARNResource", "S3:ObjectLambdaEndpoint", "serializeImmutableHostnameBucket",
	"S3:UpdateEndpoint", "S3:RemoveBucketFromPathMiddleware", "isExpressUserAgent",
	"ClientRequestID", "AWSChecksum:RequestMetricsTracking", "AWSChecksum:ResponseMetricsTracking", "UserAgent",
	"RecursionDetection",
	"DisableAcceptEncodingGzip", "InterceptBeforeRetryLoop", "InterceptAttempt", "disableHTTPS",
	"AWSChecksum:ComputeInputPayloadChecksum", "addInputChecksumTrailer", "setLegacyContextSigningOptions",
	"AWSChecksum:ValidateOutputPayloadChecksum", "RequestResponseLogger",
}

// trim takes out of an operation what is needless, and lets our hash be the payload's.
func trim(stack *middleware.Stack) error {
	steps := []interface {
		List() []string
	}{stack.Initialize, stack.Serialize, stack.Build, stack.Finalize, stack.Deserialize}
	remove := []func(string) error{
		func(id string) error { _, err := stack.Initialize.Remove(id); return err },
		func(id string) error { _, err := stack.Serialize.Remove(id); return err },
		func(id string) error { _, err := stack.Build.Remove(id); return err },
		func(id string) error { _, err := stack.Finalize.Remove(id); return err },
		func(id string) error { _, err := stack.Deserialize.Remove(id); return err },
	}
	for i, step := range steps {
		for _, id := range step.List() {
			if !slices.Contains(needless, id) && !(id == "S3100Continue" && stack.ID() == "UploadPart") {
				continue
			}
			if stack.ID() == "DeleteObjects" && id[:3] == "AWS" || id == "addInputChecksumTrailer" {
				continue // the one request whose checksum the SDK has to add
			}
			if err := remove[i](id); err != nil {
				return err
			}
		}
	}
	_, err := stack.Finalize.Swap("ComputePayloadHash", payload{})
	return err
}

// payload names the hash of the body that we have already.
type payload struct{}

func (payload) ID() string { return "ComputePayloadHash" }

func (payload) HandleFinalize(
	ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
) (middleware.FinalizeOutput, middleware.Metadata, error) {
	about := requestOf(ctx)
	switch {
	case about != nil && about.hash != "":
		ctx = v4.SetPayloadHash(ctx, about.hash)
	case about == nil || about.part == nil:
		return (&v4.ComputePayloadSHA256{}).HandleFinalize(ctx, in, next)
	}
	return next.HandleFinalize(ctx, in)
}

const (
	maxBackoff = 5 * time.Second
	// retryBudget bounds how long an operation goes on trying; the attempt under way may last a stall timer longer.
	retryBudget = 60 * time.Second
)

// noLimit: a server that is down must not make other operations fail at once.
type noLimit struct{}

func (noLimit) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}

func (noLimit) AddTokens(uint) error { return nil }

// patience is a retryer of one operation: it ends at a time, and hears what the server asks for.
type patience struct {
	aws.Retryer
	until time.Time
}

func (p patience) IsErrorRetryable(err error) bool {
	return time.Now().Before(p.until) && (p.Retryer.IsErrorRetryable(err) && !hopeless(err) || garbled(err))
}

func (p patience) RetryDelay(attempt int, err error) (time.Duration, error) {
	delay, failed := p.Retryer.RetryDelay(attempt, err)
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && failed == nil {
		if asked, err := time.ParseDuration(response.Response.Header.Get("Retry-After") + "s"); err == nil {
			delay = min(max(delay, asked), 2*maxBackoff)
		}
	}
	return delay, failed
}

// perform makes one request of the SDK, with our retries and our classes of errors.
func perform[In, Out any](
	ctx context.Context, about *request, in In,
	call func(context.Context, In, ...func(*sdk.Options)) (Out, error),
) (Out, error) {
	until := time.Now().Add(retryBudget)
	out, err := call(context.WithValue(ctx, requestKey{}, about), in, func(o *sdk.Options) {
		o.Retryer = patience{o.Retryer, until}
	})
	if err != nil {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		return out, classify(err)
	}
	return out, nil
}

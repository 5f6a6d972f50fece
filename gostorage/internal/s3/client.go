package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// client is one SDK client with its connections, shared by all stores of one configuration. It goes when the last
// store and the last operation have let go of it.
type client struct {
	operations
	connections *http.Transport
	credentials aws.CredentialsProvider
	region      string
	endpoint    *url.URL
	ahead       *atomic.Int64        // how far the server's clock was at its last answer, in nanoseconds
	folders     atomic.Pointer[bool] // whether it lists unfinished uploads by a folder; known once there were some
	key         string
	users       int
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
	credentials, region, err := c.identity(ctx)
	if err != nil {
		return nil, err
	}
	endpoint, err := c.endpoint(ctx, region)
	if err != nil {
		return nil, err
	}
	if through.Proxy, err = c.proxy(endpoint); err != nil {
		return nil, err
	}
	retries := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = c.MaxAttempts
		o.MaxBackoff = maxBackoff
		o.RateLimiter = noLimit{}
	})
	signing := sign{v4.NewSigner(), credentials, region, endpoint, new(atomic.Int64), new(atomic.Int64)}
	made := sdk.New(sdk.Options{
		Region:                       region,
		Retryer:                      patience{retries},
		RequestChecksumCalculation:   aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:   aws.ResponseChecksumValidationWhenRequired,
		ContinueHeaderThresholdBytes: -1, // the sender announces bodies
		APIOptions: []func(*middleware.Stack) error{trim, func(stack *middleware.Stack) error {
			return stack.Finalize.Add(signing, middleware.After)
		}},
	})
	return &client{
		operations: prepare(made, sender{plain}), connections: through,
		credentials: credentials, region: region, endpoint: endpoint, ahead: signing.ahead,
	}, nil
}

// stay follows no redirect: a signature is for one host.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// needless are the SDK's steps that a fixed endpoint, one way to sign, checksums of our own and one HTTP client leave
// nothing to do.
var needless = []string{
	"AWSChecksum:SetupInputContext", "AWSChecksum:SetupOutputContext", "S3Shared:ARNLookup",
	"putBucketContext", "setOperationInput",
	"ResolveEndpoint", "S3:ProcessARNResource", "S3:ObjectLambdaEndpoint", "serializeImmutableHostnameBucket",
	"S3:UpdateEndpoint", "S3:RemoveBucketFromPathMiddleware", "isExpressUserAgent",
	"ClientRequestID", "AWSChecksum:RequestMetricsTracking", "AWSChecksum:ResponseMetricsTracking", "UserAgent",
	"RecursionDetection",
	"DisableAcceptEncodingGzip", "InterceptBeforeRetryLoop", "InterceptAttempt", "disableHTTPS",
	"ResolveAuthScheme", "GetIdentity", "ResolveEndpointV2", "ComputePayloadHash", "SigV4ContentSHA256Header",
	"AWSChecksum:ComputeInputPayloadChecksum", "addInputChecksumTrailer", "setLegacyContextSigningOptions", "Signing",
	"AWSChecksum:ValidateOutputPayloadChecksum", "RequestResponseLogger",
}

// needed tells what stays in the steps of one operation.
func needed(operation, step string) bool {
	switch {
	case operation == "UploadPart" && step == "S3100Continue":
		return false // what could refuse a part has refused the upload
	default:
		return !slices.Contains(needless, step)
	}
}

// trim takes out of an operation what is needless.
func trim(stack *middleware.Stack) error {
	var failed error
	remove := func(steps []string, remove func(string) error) {
		for _, step := range steps {
			if !needed(stack.ID(), step) {
				failed = errors.Join(failed, remove(step))
			}
		}
	}
	remove(stack.Initialize.List(), func(id string) error { _, err := stack.Initialize.Remove(id); return err })
	remove(stack.Serialize.List(), func(id string) error { _, err := stack.Serialize.Remove(id); return err })
	remove(stack.Build.List(), func(id string) error { _, err := stack.Build.Remove(id); return err })
	remove(stack.Finalize.List(), func(id string) error { _, err := stack.Finalize.Remove(id); return err })
	remove(stack.Deserialize.List(), func(id string) error { _, err := stack.Deserialize.Remove(id); return err })
	return failed
}

// sign is the last step of each attempt: it gives a request its host and its signature.
type sign struct {
	signer      *v4.Signer
	credentials aws.CredentialsProvider
	region      string
	endpoint    *url.URL
	skew        *atomic.Int64 // how far the server's clock is ahead, in nanoseconds, if it minds
	ahead       *atomic.Int64 // the same, as of its last answer
}

func (sign) ID() string { return "Signing" }

func (s sign) HandleFinalize(
	ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
) (middleware.FinalizeOutput, middleware.Metadata, error) {
	fail := func(err error) (middleware.FinalizeOutput, middleware.Metadata, error) {
		return middleware.FinalizeOutput{}, middleware.Metadata{}, err
	}
	request := in.Request.(*smithyhttp.Request)
	if s.endpoint.RawPath == "" && request.URL.RawPath != "" {
		request.URL.RawPath = smithyhttp.JoinPath(s.endpoint.EscapedPath(), request.URL.RawPath)
	}
	request.URL.Scheme, request.URL.Host = s.endpoint.Scheme, s.endpoint.Host
	request.URL.Path = smithyhttp.JoinPath(s.endpoint.Path, request.URL.Path)
	identity, err := s.credentials.Retrieve(ctx)
	if err != nil {
		return fail(&credentialsError{err})
	}
	hash, err := payloadHash(requestOf(ctx), request)
	if err != nil {
		return fail(err)
	}
	request.Header["X-Amz-Content-Sha256"] = []string{hash}
	now := time.Now().Add(time.Duration(s.skew.Load()))
	err = s.signer.SignHTTP(ctx, identity, request.Request, hash, "s3", s.region, now, asItIs)
	if err != nil {
		return fail(err)
	}
	out, metadata, err := next.HandleFinalize(ctx, in)
	if skew, ok := awsmiddleware.GetAttemptSkew(metadata); ok {
		s.ahead.Store(int64(skew))
		if err != nil {
			s.skew.Store(int64(skew)) // the retry is signed by the server's clock
		}
	}
	return out, metadata, err
}

// asItIs: S3 signs a path as it is sent.
func asItIs(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }

// nothing is the SHA-256 of no bytes.
const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// payloadHash gives the hash that is known already, or that of a small body of the SDK's. The one request that S3 wants
// a checksum for gets Content-MD5, which every store knows.
func payloadHash(about *request, prepared *smithyhttp.Request) (string, error) {
	stream := prepared.GetStream()
	if about.hash != "" {
		return about.hash, nil
	}
	if stream == nil || about.part != nil {
		return nothing, nil
	}
	text, err := io.ReadAll(stream)
	if err != nil {
		return "", err
	}
	if about.md5 {
		sum := md5.Sum(text)
		prepared.Header["Content-Md5"] = []string{*base64Of(sum[:])}
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), prepared.RewindStream()
}

// credentialsError says that the default chain found nobody to be.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }

func (e *credentialsError) Unwrap() error { return e.err }

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

// patience is the SDK's retryer with a limit in time, and an ear for what the server asks for.
type patience struct{ aws.RetryerV2 }

func (p patience) IsErrorRetryable(err error) bool {
	return p.RetryerV2.IsErrorRetryable(err) && !hopeless(err) || garbled(err) || senseless(err)
}

var errPatience = errors.New("the time for retries is over")

func (p patience) GetRetryToken(ctx context.Context, failed error) (func(error) error, error) {
	if about := requestOf(ctx); about != nil && time.Since(about.began) > retryBudget {
		return nil, errPatience
	}
	return p.RetryerV2.GetRetryToken(ctx, failed)
}

func (p patience) RetryDelay(attempt int, err error) (time.Duration, error) {
	delay, failed := p.RetryerV2.RetryDelay(attempt, err)
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && failed == nil {
		if asked, err := time.ParseDuration(response.Response.Header.Get("Retry-After") + "s"); err == nil {
			delay = min(max(delay, asked), 2*maxBackoff)
		}
	}
	return delay, failed
}

// Package awsconfig reads the options, the environment and AWS's files, as the SDK and boto3 do. It finds the endpoint,
// region, proxy, certificates and credentials.
package awsconfig

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Options are the options of an adapter that say where its requests go. Buckets with equal Options share their
// connections. Times are in seconds.
type Options struct {
	Bucket          string  `json:"bucket_name"`
	AccessKey       string  `json:"access_key"`
	SecretKey       string  `json:"secret_key"`
	SessionToken    string  `json:"security_token"`
	Region          string  `json:"region_name"`
	Endpoint        string  `json:"endpoint_url"`
	PublicEndpoint  string  `json:"public_endpoint_url"` // the endpoint that clients of presigned URLs see, if another one
	AddressingStyle string  `json:"addressing_style"`
	Verify          bool    `json:"verify"`
	CABundle        string  `json:"ca_bundle"`
	ConnectTimeout  float64 `json:"connect_timeout"`
	ReadTimeout     float64 `json:"read_timeout"`
	MaxAttempts     int     `json:"max_attempts"`
	Proxy           string  `json:"proxy"`
	MaxConnections  int     `json:"max_connections"`
	// Environment has the variables of Python's environment that the default chain and the choice of a proxy read.
	Environment map[string]string `json:"environment"`
}

// Resolved is the result of Resolve, found once for all requests.
type Resolved struct {
	Options     Options // with the endpoint and the region of the environment or the profile if none was set
	Host        *url.URL
	Public      *url.URL // the host of presigned URLs
	Proxy       *url.URL // or nil
	TLS         *tls.Config
	Credentials *Credentials
	Exposed     bool // requests pass other machines unencrypted
}

// Resolve reads files and the environment, never the network. Its errors say what to do, and name the options.
func (c Options) Resolve(ctx context.Context) (*Resolved, error) {
	setEnvironment(c.Environment)
	secure, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	credentials, err := c.resolve(ctx)
	if err != nil {
		return nil, err
	}
	host, err := c.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	public := host
	if c.PublicEndpoint != "" {
		seen := c
		seen.Endpoint = c.PublicEndpoint
		if public, err = seen.endpoint(ctx); err != nil {
			return nil, err
		}
	}
	proxy, err := c.proxy(host)
	if err != nil {
		return nil, err
	}
	exposed := host.Scheme == "http" && !(loopback(host) && (proxy == nil || loopback(proxy)))
	return &Resolved{c, host, public, proxy, secure, keep(credentials), exposed}, nil
}

// loopback tells whether a URL leads to this machine.
func loopback(to *url.URL) bool {
	host := to.Hostname()
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// defaultRegion is what S3-compatible stores, and AWS's global endpoint, expect where no region is configured.
const defaultRegion = "us-east-1"

// ofHome gives the path of a file of the SDK: the one that a variable names, else the one below the home directory.
func (c *Options) ofHome(variable, name string) string {
	return cmp.Or(c.Environment[variable], filepath.Join(c.Environment["HOME"], ".aws", name))
}

// resolve finds what is not configured in the environment and the profile, as the SDK does: region and endpoint, which
// it stores in c, and credentials. The default chain for credentials asks other servers than the endpoint. It uses a
// client of its own, which knows AWS_CA_BUNDLE too.
func (c *Options) resolve(ctx context.Context) (aws.CredentialsProvider, error) {
	var provider aws.CredentialsProvider
	if c.AccessKey != "" {
		provider = credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, c.SessionToken)
		if c.Endpoint != "" {
			c.Region = cmp.Or(c.Region, defaultRegion)
			return provider, nil
		}
	}
	issuer := awshttp.NewBuildableClient().WithTimeout(issuerTime).WithTransportOptions(func(t *http.Transport) {
		t.Proxy = func(request *http.Request) (*url.URL, error) { return c.proxyOfEnvironment(request.URL) }
	})
	found, failed := awsconfig.LoadDefaultConfig(ctx,
		// The SDK's own paths have the home directory of the time when the SDK was loaded.
		awsconfig.WithSharedConfigFiles([]string{c.ofHome("AWS_CONFIG_FILE", "config")}),
		awsconfig.WithSharedCredentialsFiles([]string{c.ofHome("AWS_SHARED_CREDENTIALS_FILE", "credentials")}),
		awsconfig.WithRegion(c.Region), awsconfig.WithLogger(logging.Nop{}),
		awsconfig.WithDefaultsMode(aws.DefaultsModeStandard), // the automatic one would ask the network
		awsconfig.WithHTTPClient(issuer),
		awsconfig.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = issuer }),
		awsconfig.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts = issuerAttempts
				o.Retryables = append(o.Retryables, retry.RetryableHTTPStatusCode{
					Codes: map[int]struct{}{http.StatusTooManyRequests: {}},
				})
			})
		}),
		awsconfig.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) {
			o.ExpiryWindow, o.ExpiryWindowJitterFrac = renewedBefore, 0
		}),
	)
	if err := descriptorLeft(); err != nil { // the SDK takes a file that it cannot open for an empty one
		return nil, err
	}
	if _, ok := errors.AsType[awsconfig.SharedConfigProfileNotExistError](failed); ok {
		return nil, object.Errorf(object.Config, "AWS_PROFILE of the environment names a profile that does not exist")
	}
	if failed != nil {
		return nil, object.Errorf(object.Config, "the AWS configuration of the environment cannot be used")
	}
	c.Region = cmp.Or(found.Region, defaultRegion)
	if c.Endpoint == "" {
		c.Endpoint = strings.TrimRight(aws.ToString(sdk.NewFromConfig(found).Options().BaseEndpoint), "/")
		if c.Endpoint != "" && !isEndpoint(c.Endpoint) {
			return nil, object.Errorf(object.Config, "AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile's endpoint_url is a URL"+
				" such as https://s3.example.com, with http:// or https://, without credentials and query")
		}
	}
	if provider == nil {
		provider = found.Credentials
	}
	return provider, nil
}

// descriptorLeft gives an error if no file descriptor is left.
func descriptorLeft() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd)
	}
	return starved(err)
}

// starved gives the error for the caller if err comes from a lack of file descriptors, else nil.
func starved(err error) error {
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
		return nil
	}
	return object.Retryablef(object.Unavailable, "no file descriptor is left (ulimit -n)")
}

func isEndpoint(text string) bool {
	to, err := url.Parse(text)
	return err == nil && (to.Scheme == "http" || to.Scheme == "https") && to.Hostname() != "" && to.User == nil &&
		to.RawQuery == ""
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// PathStyle tells whether the path names the bucket. "auto" is what boto3 does: the path names it with a configured
// endpoint, or if the bucket has dots, which would not match a certificate; else the host name does.
func (c Options) PathStyle() bool {
	switch c.AddressingStyle {
	case "path":
		return true
	case "virtual":
		return false
	default:
		return c.Endpoint != "" || !dnsName.MatchString(c.Bucket)
	}
}

// endpoint applies the SDK's rules once: our configuration is fixed, so every request would get the same answer.
func (c Options) endpoint(ctx context.Context) (*url.URL, error) {
	parameters := sdk.EndpointParameters{
		Bucket:         aws.String(c.Bucket),
		Region:         aws.String(c.Region),
		ForcePathStyle: aws.Bool(c.PathStyle()),
		UseFIPS:        aws.Bool(false),
		UseDualStack:   aws.Bool(false),
		Accelerate:     aws.Bool(false),
	}
	if c.Endpoint != "" {
		parameters.Endpoint = aws.String(c.Endpoint)
	}
	resolved, err := sdk.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, parameters)
	if err != nil {
		return nil, object.Errorf(object.Config,
			"endpoint_url, region_name and bucket_name give no endpoint: %v", err)
	}
	return &resolved.URI, nil
}

func (c Options) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: !c.Verify, MinVersion: tls.VersionTLS12} //nolint:gosec // verify=False
	if c.CABundle == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.CABundle)
	if none := starved(err); none != nil {
		return nil, none
	}
	if err != nil {
		return nil, object.Errorf(object.Config, "ca_bundle (or AWS_CA_BUNDLE) is a file that cannot be read")
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, object.Errorf(object.Config, "ca_bundle (or AWS_CA_BUNDLE) holds no certificate in PEM form")
	}
	return config, nil
}

// proxy chooses the proxy once, since a client has one host.
func (c Options) proxy(host *url.URL) (*url.URL, error) {
	if c.Proxy == "" {
		return c.proxyOfEnvironment(host)
	}
	through, ok := proxyURL(c.Proxy)
	if !ok {
		return nil, object.Errorf(object.Config, "proxy is a URL such as http://proxy.example:3128")
	}
	return through, nil
}

// proxyOfEnvironment gives the proxy that the adapter's environment names for a host, or nil. As with boto3, the
// lower-case name of a variable wins, even if it is empty, and ALL_PROXY is not read.
func (c Options) proxyOfEnvironment(host *url.URL) (*url.URL, error) {
	named := func(name string) string {
		value, ok := c.Environment[strings.ToLower(name)]
		// Under CGI, HTTP_PROXY is a header of the request that the process serves.
		if !ok && !(name == "HTTP_PROXY" && c.Environment["REQUEST_METHOD"] != "") {
			value = c.Environment[name]
		}
		return value
	}
	variable := strings.ToUpper(host.Scheme) + "_PROXY"
	value := named(variable)
	// NO_PROXY is only asked whether any proxy is used.
	const any = "http://proxy.invalid"
	used := httpproxy.Config{HTTPProxy: any, HTTPSProxy: any, NoProxy: named("NO_PROXY")}
	if through, _ := used.ProxyFunc()(host); value == "" || through == nil {
		return nil, nil
	}
	through, ok := proxyURL(value)
	if !ok {
		return nil, object.Errorf(object.Config, "%s of the environment is no URL such as http://proxy.example:3128", variable)
	}
	return through, nil
}

// proxyURL reads the URL of a proxy, or its host and port.
func proxyURL(text string) (*url.URL, bool) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	through, err := url.Parse(text)
	if err != nil || through.Hostname() == "" || httpconn.Ports[through.Scheme] == "" {
		return nil, false
	}
	return through, true
}

// setEnvironment copies Python's environment to Go's, which the SDK's default chain reads: Python's may have changed
// since the extension was loaded.
func setEnvironment(now map[string]string) {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if _, ok := now[name]; !ok && fromEnvironment(name) {
			_ = os.Unsetenv(name)
		}
	}
	for name, value := range now {
		if os.Getenv(name) != value && fromEnvironment(name) {
			_ = os.Setenv(name, value)
		}
	}
}

func fromEnvironment(name string) bool {
	return strings.HasPrefix(name, "AWS_") || name == "HOME"
}

package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Config says where objects are and how requests are made. Fields are the adapter's options; times are in seconds and
// sizes in bytes.
type Config struct {
	Prefix string `json:"prefix"`
	connection
	PartSize          int64  `json:"part_size"`
	Concurrency       int    `json:"concurrency"`
	EqualParts        bool   `json:"equal_parts"`
	Checksum          string `json:"checksum"`
	Encryption        string `json:"server_side_encryption"`
	KMSKey            string `json:"kms_key_id"`
	StorageClass      string `json:"storage_class"`
	ConditionalWrites string `json:"conditional_writes"` // "required", or "look": before a put, which is not atomic
}

// connection is what decides which client a store uses: stores with the same share one.
type connection struct {
	Bucket          string  `json:"bucket_name"`
	AccessKey       string  `json:"access_key"`
	SecretKey       string  `json:"secret_key"`
	SessionToken    string  `json:"security_token"`
	Region          string  `json:"region_name"`
	Endpoint        string  `json:"endpoint_url"`
	AddressingStyle string  `json:"addressing_style"`
	Verify          bool    `json:"verify"`
	CABundle        string  `json:"ca_bundle"`
	ConnectTimeout  float64 `json:"connect_timeout"`
	ReadTimeout     float64 `json:"read_timeout"`
	MaxAttempts     int     `json:"max_attempts"`
	Proxy           string  `json:"proxy"`
	Idle            int     `json:"-"` // connections kept open
	// Environment is Python's, as far as the default chain and the choice of a proxy read it.
	Environment map[string]string `json:"environment"`
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// defaultRegion is what S3-compatible stores expect where nothing is said, and AWS's global endpoint.
const defaultRegion = "us-east-1"

// identity finds credentials and region: what was configured, else the SDK's default chain. That asks other servers than
// the endpoint, by a client of its own which knows AWS_CA_BUNDLE too.
func (c connection) identity(ctx context.Context) (aws.CredentialsProvider, string, error) {
	var provider aws.CredentialsProvider
	if c.AccessKey != "" {
		provider = credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, c.SessionToken)
		if c.Region != "" || c.Endpoint != "" {
			return provider, orDefault(c.Region, defaultRegion), nil
		}
	}
	var options []func(*awsconfig.LoadOptions) error
	if c.Region != "" {
		options = append(options, awsconfig.WithRegion(c.Region))
	}
	found, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, "", object.Errorf(object.Config, "the AWS configuration of the environment cannot be used")
	}
	if provider == nil {
		provider = found.Credentials
	}
	return provider, orDefault(found.Region, defaultRegion), nil
}

func orDefault(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// pathStyle tells whether the bucket is named in the path. "auto" is what boto3 does: in the path for an endpoint of
// one's own, and for a bucket whose dots would not match a certificate; else in the host name.
func (c connection) pathStyle() bool {
	switch c.AddressingStyle {
	case "path":
		return true
	case "virtual":
		return false
	default:
		return c.Endpoint != "" || !dnsName.MatchString(c.Bucket)
	}
}

// endpoint resolves the SDK's rules once: our configuration is fixed, so that every request has the same answer.
func (c connection) endpoint(ctx context.Context, region string) (*url.URL, error) {
	parameters := sdk.EndpointParameters{
		Bucket:         aws.String(c.Bucket),
		Region:         aws.String(region),
		ForcePathStyle: aws.Bool(c.pathStyle()),
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

func (c connection) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: !c.Verify, MinVersion: tls.VersionTLS12} //nolint:gosec // verify=False
	if c.CABundle == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.CABundle)
	if err != nil {
		return nil, object.Errorf(object.Config, "ca_bundle (or AWS_CA_BUNDLE) is a file that cannot be read")
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, object.Errorf(object.Config, "ca_bundle (or AWS_CA_BUNDLE) holds no certificate in PEM form")
	}
	return config, nil
}

// proxy decides once, since a client has one host.
func (c connection) proxy(host *url.URL) (*url.URL, error) {
	if c.Proxy != "" {
		through, err := url.Parse(c.Proxy)
		if err != nil || through.Host == "" {
			return nil, object.Errorf(object.Config, "proxy is a URL such as http://proxy.example:3128")
		}
		return through, nil
	}
	through, err := http.ProxyFromEnvironment(&http.Request{URL: host})
	if err != nil {
		return nil, object.Errorf(object.Config, "HTTP_PROXY or HTTPS_PROXY of the environment is no URL")
	}
	return through, nil
}

// setEnvironment makes Go's view of the environment that of Python, which may have changed since the extension was
// loaded: the SDK's default chain and the proxies are read from it.
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
	return strings.HasPrefix(name, "AWS_") || name == "HOME" || strings.HasSuffix(strings.ToUpper(name), "_PROXY")
}

package s3api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
)

// Bucket is where the objects of an adapter's area are: a prefix of a bucket.
type Bucket struct {
	config Config
	client *client
	// Traits are shared by all buckets of one client.
	Traits *Traits
}

// Traits are what a store has shown of itself, so that it is asked once.
type Traits struct {
	Miscounts atomic.Bool             // it tells checksums that are none of the bytes
	Unordered atomic.Bool             // it lists in no order
	Folders   atomic.Pointer[bool]    // whether it lists unfinished uploads by a folder; known once there were some
	Judged    atomic.Bool             // it was asked for the checksum of an object that came in parts
	Creates   [2]atomic.Pointer[bool] // whether it refuses to replace what is there: by a put, by the end of an upload
}

// Open makes a Bucket, which is released by Unref. It reads files and the environment, never the network.
func Open(config Config) (*Bucket, error) {
	shared, err := share(config.Connection)
	if err != nil {
		return nil, err
	}
	config.Connection = shared.resolved
	return &Bucket{config, shared, &shared.traits}, nil
}

// Ref keeps the connections open until Unref: an operation goes on after its store was closed.
func (b *Bucket) Ref() { b.client.ref() }

// Unref lets go of what Open or Ref hold.
func (b *Bucket) Unref() { b.client.unref() }

// SameStore tells whether two buckets are one, but for their prefixes.
func (b *Bucket) SameStore(other *Bucket) bool { return b.client == other.client }

// Path is the key in the bucket of a key of ours.
func (b *Bucket) Path(key string) string { return b.config.Prefix + key }

func (b *Bucket) path(key string) *string { return aws.String(b.Path(key)) }

// Exposed tells whether what is sent passes other machines in the clear.
func (b *Bucket) Exposed() bool { return b.client.exposed }

// Secure tells whether connections are encrypted.
func (b *Bucket) Secure() bool { return b.client.endpoint.Scheme == "https" }

// Region is the one that requests are signed for.
func (b *Bucket) Region() string { return b.client.region }

// Where says in words where requests go.
func (b *Bucket) Where() string {
	style := "virtual"
	if b.config.pathStyle() {
		style = "path"
	}
	return fmt.Sprintf("%s://%s, region %s, %s style", b.client.endpoint.Scheme, b.client.endpoint.Host, b.client.region, style)
}

// Ahead is how far the store's clock was ahead of ours at its last answer, less up to a second: it tells no fractions. It is
// 0 before there was an answer, and where the store does not tell.
func (b *Bucket) Ahead() time.Duration { return time.Duration(b.client.ahead.Load()) }

// client is the captured SDK with its connections, shared by all buckets of one configuration. It goes when the last
// of them and the last operation have let go of it.
type client struct {
	operations
	*attempts
	resolved Connection // what it is for, with the endpoint of the environment or the profile if none was set
	traits   Traits
	exposed  bool // what is sent passes other machines in the clear
	key      string
	users    int
}

var clients = struct {
	mu    sync.Mutex
	known map[string]*client
}{known: map[string]*client{}}

// share gives the client of a configuration.
func share(c Connection) (*client, error) {
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

func (c *client) ref() {
	clients.mu.Lock()
	c.users++
	clients.mu.Unlock()
}

func (c *client) unref() {
	clients.mu.Lock()
	c.users--
	last := c.users == 0
	if last {
		delete(clients.known, c.key)
	}
	clients.mu.Unlock()
	if last {
		c.transport.Close()
	}
}

func connect(c Connection) (*client, error) {
	setEnvironment(c.Environment)
	secure, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	credentials, err := c.resolve(ctx)
	if err != nil {
		return nil, err
	}
	region := c.Region
	endpoint, err := c.endpoint(ctx, region)
	if err != nil {
		return nil, err
	}
	proxy, err := c.proxy(endpoint)
	if err != nil {
		return nil, err
	}
	by := &attempts{
		transport: httpconn.New(httpconn.Config{
			Host: endpoint, Proxy: proxy, TLS: secure, Connect: Seconds(c.ConnectTimeout), Stall: Seconds(c.ReadTimeout),
			Idle: c.Idle,
		}),
		signer: v4.NewSigner(), credentials: keep(credentials), region: region, endpoint: endpoint,
		retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = c.MaxAttempts
			o.MaxBackoff = maxBackoff
		}),
	}
	made := &client{operations: prepare(sdk.New(sdk.Options{Region: region}), by), attempts: by, resolved: c}
	made.exposed = endpoint.Scheme == "http" && !(loopback(endpoint) && (proxy == nil || loopback(proxy)))
	return made, nil
}

// loopback tells whether a URL leads to this machine.
func loopback(to *url.URL) bool {
	host := to.Hostname()
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

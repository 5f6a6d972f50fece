// Package s3api makes the requests of S3. Typed operations go in, and answers that were compared with the requests come
// out. No other package knows the SDK's operations and its signatures; awsconfig uses the SDK too, to find its settings.
//
// A method of Bucket (operations.go) fills the SDK's input. The SDK's own serializer gives the request its form
// (capture.go). attempts.go signs it, sends it by httpconn, and sends it again where retries.go says that this may help.
// answers.go judges the answer before anything depends on it. What leaves in the end is an *object.Error (errors.go).
//
// Nothing is written but by these requests, and each method says what its failure may leave in the store.
package s3api

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
)

// Config says where objects are and how requests are made. Fields are the adapter's options; times are in seconds and
// sizes in bytes.
type Config struct {
	Prefix string `json:"prefix"` // of all keys
	awsconfig.Options
	Encryption   string `json:"server_side_encryption"`
	KMSKey       string `json:"kms_key_id"`
	StorageClass string `json:"storage_class"`
}

// Seconds is a time of the configuration.
func Seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Bucket is the place of the objects of an adapter's area: a prefix of a bucket.
type Bucket struct {
	config Config
	client *client
	// Traits are shared by all buckets of one client.
	Traits *Traits
	// Connections are those that requests to the server have in common, by the option max_connections. All buckets of one
	// client share them.
	//
	// A call or a reader needs no share for the first request that it has under way, so it never waits for others. It
	// takes one unit of its own share for each further request beside that one, and gives it back when the request has
	// ended. Without a share to be had, it goes on with fewer requests at a time.
	Connections *flow.Total
}

// Traits are what a store has shown of itself, so that it is asked only once.
type Traits struct {
	Near      atomic.Bool             // the last upload has found it so near that one part at a time is enough
	InFlight  atomic.Int32            // how many parts in flight have been right for the last upload; 0: not known
	Miscounts atomic.Bool             // it tells checksums that are not those of the bytes
	Unordered atomic.Bool             // it lists in no order
	Folders   atomic.Pointer[bool]    // whether it lists unfinished uploads by folder; known once there were some
	Judged    atomic.Bool             // it was asked for the checksum of an object that came in parts
	Creates   [2]atomic.Pointer[bool] // whether it refuses to replace an object: by a put, by the end of an upload
}

// Open makes a Bucket, which Unref releases. It reads files and the environment, never the network.
func Open(config Config) (*Bucket, error) {
	shared, err := share(config.Options)
	if err != nil {
		return nil, err
	}
	config.Options = shared.resolved.Options
	return &Bucket{config, shared, &shared.traits, shared.connections}, nil
}

// Ref keeps the connections open until Unref: an operation goes on after its store was closed.
func (b *Bucket) Ref() { b.client.ref() }

// Unref releases what Open or Ref hold.
func (b *Bucket) Unref() { b.client.unref() }

// SameStore tells whether two buckets are the same, apart from their prefixes.
func (b *Bucket) SameStore(other *Bucket) bool { return b.client == other.client }

// Path is the key in the bucket for one of our keys.
func (b *Bucket) Path(key string) string { return b.config.Prefix + key }

func (b *Bucket) path(key string) *string { return aws.String(b.Path(key)) }

// Exposed tells whether requests pass other machines unencrypted.
func (b *Bucket) Exposed() bool { return b.client.resolved.Exposed }

// Secure tells whether connections are encrypted.
func (b *Bucket) Secure() bool { return b.client.endpoint.Scheme == "https" }

// Region is the region that requests are signed for.
func (b *Bucket) Region() string { return b.client.region }

// Where says in words where requests go.
func (b *Bucket) Where() string {
	style := "virtual"
	if b.config.PathStyle() {
		style = "path"
	}
	return fmt.Sprintf("%s://%s, region %s, %s style", b.client.endpoint.Scheme, b.client.endpoint.Host, b.client.region, style)
}

// Ahead is how far the store's clock was ahead of ours at its last answer, less up to a second: the store tells no
// fractions. It is 0 before the first answer, and if the store does not tell its time.
func (b *Bucket) Ahead() time.Duration { return time.Duration(b.client.ahead.Load()) }

// client is the captured SDK with its connections, shared by all buckets of one configuration. It ends when the last
// bucket and the last operation have released it.
type client struct {
	operations
	*attempts
	resolved *awsconfig.Resolved
	traits   Traits
	key      string
	// connections are divided by transfers: see Bucket.
	connections *flow.Total
	users       int
}

var clients = struct {
	mu    sync.Mutex
	known map[string]*client
}{known: map[string]*client{}}

// share gives the client of a configuration.
func share(c awsconfig.Options) (*client, error) {
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

// Warm makes connections to the server ahead of need, until there are so many with those in use.
func (b *Bucket) Warm(ctx context.Context, connections int) {
	b.client.attempts.transport.Warm(ctx, connections)
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

func connect(c awsconfig.Options) (*client, error) {
	found, err := c.Resolve(context.Background())
	if err != nil {
		return nil, err
	}
	by := &attempts{
		transport: httpconn.New(httpconn.Config{
			Host: found.Host, Proxy: found.Proxy, TLS: found.TLS,
			Connect: Seconds(c.ConnectTimeout), Stall: Seconds(c.ReadTimeout), Idle: c.MaxConnections,
		}),
		signer: v4.NewSigner(), credentials: found.Credentials, region: found.Options.Region, endpoint: found.Host,
		retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = c.MaxAttempts
			o.MaxBackoff = maxBackoff
		}),
	}
	return &client{
		operations: prepare(sdk.New(sdk.Options{Region: by.region}), by), attempts: by, resolved: found,
		connections: flow.NewTotal(int64(c.MaxConnections), 1),
	}, nil
}

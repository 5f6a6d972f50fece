package s3

import (
	"context"
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
)

// client is one SDK client with its connections, shared by all stores of one configuration. It goes when the last
// store and the last operation have let go of it.
type client struct {
	operations
	*attempts
	resolved connection // what it is for, with the endpoint of the environment or the profile if none was set
	// What its store has shown of itself.
	miscounts atomic.Bool             // it tells checksums that are none of the bytes
	unordered atomic.Bool             // it lists in no order
	folders   atomic.Pointer[bool]    // whether it lists unfinished uploads by a folder; known once there were some
	judged    atomic.Bool             // it was asked for the checksum of an object that came in parts
	creates   [2]atomic.Pointer[bool] // whether it refuses to replace what is there: by a put, by the end of an upload
	exposed   bool                    // what is sent passes other machines in the clear
	key       string
	users     int
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
	if last {
		c.transport.Close()
	}
}

func connect(c connection) (*client, error) {
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
			Host: endpoint, Proxy: proxy, TLS: secure, Connect: seconds(c.ConnectTimeout), Stall: seconds(c.ReadTimeout),
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

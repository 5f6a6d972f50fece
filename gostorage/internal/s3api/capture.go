package s3api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// operation is an operation of the SDK: its form of a request and its understanding of an answer. What the SDK does in
// between costs more than the rest of a small request. With one endpoint, one way to sign and one transport, attempts does
// it instead.
type operation[In, Out any] struct {
	by     *attempts
	sdk    *captured
	filled func(*In) bool // whether a request has what it must have
	read   reading[In, Out]
}

// reading judges an answer with a status of success, and gives what it says. An error tells why it is no success. The
// body is closed by reading, or goes on in Out.
type reading[In, Out any] func(ctx context.Context, in *In, response *http.Response) (*Out, error)

// captured are the steps of the SDK around the attempts of one operation.
type captured struct {
	first func() steps // the steps whose base and serialize serve all calls; built for the first call
	idle  chan steps
	build func() steps
}

// steps are the steps of one call.
type steps struct {
	base        context.Context // what the SDK tells its steps
	serialize   middleware.SerializeMiddleware
	deserialize *middleware.DeserializeStep // for one answer at a time
}

// idleSteps is how many steps are kept for the next calls of an operation.
const idleSteps = 16

// deserialize lets the SDK read an answer whose body is in memory: an output of the operation, or the error that it tells.
func (c *captured) deserialize(ctx context.Context, response *http.Response) (any, error) {
	var used steps
	select {
	case used = <-c.idle:
	default:
		used = c.build()
	}
	out, _, err := used.deserialize.HandleMiddleware(ctx, nil, answered{&smithyhttp.Response{Response: response}})
	select {
	case c.idle <- used:
	default:
	}
	return out, err
}

var errTaken = errors.New("the steps were taken")

// taker takes the context that the first step of an operation gets.
type taker struct{ base *context.Context }

func (taker) ID() string { return "taker" }

func (t taker) HandleInitialize(
	ctx context.Context, _ middleware.InitializeInput, _ middleware.InitializeHandler,
) (middleware.InitializeOutput, middleware.Metadata, error) {
	*t.base = ctx
	return middleware.InitializeOutput{}, middleware.Metadata{}, errTaken
}

// capture takes the steps of a method of the SDK's client. They are those that the client itself would go through: the
// parity test compares the requests.
func capture[In, Raw any](method func(context.Context, *In, ...func(*sdk.Options)) (*Raw, error)) *captured {
	build := func() steps {
		var taken steps
		_, _ = method(context.Background(), new(In), func(o *sdk.Options) {
			o.APIOptions = append(o.APIOptions, func(built *middleware.Stack) error {
				taken.serialize, _ = built.Serialize.Get("OperationSerializer")
				taken.deserialize = built.Deserialize
				return built.Initialize.Add(taker{&taken.base}, middleware.Before)
			})
		})
		return taken
	}
	idle := make(chan steps, idleSteps)
	first := sync.OnceValue(func() steps {
		taken := build()
		idle <- taken
		return taken
	})
	return &captured{first: first, idle: idle, build: build}
}

// joined is the context of a call, and what the SDK tells its steps.
type joined struct {
	context.Context
	base context.Context
}

func (j *joined) Value(key any) any {
	if value := j.Context.Value(key); value != nil {
		return value
	}
	return j.base.Value(key)
}

// do makes a request, with retries, and gives what its answer says. Errors have the one form that leaves this package.
func (op operation[In, Out]) do(ctx context.Context, about *request, in *In) (*Out, error) {
	if !op.filled(in) {
		return nil, object.Errorf(object.Internal, "a request lacks what it must have")
	}
	about.began = time.Now()
	var out *Out
	understand := func(ctx context.Context, response *http.Response) (err error) {
		out, err = op.understand(ctx, in, response)
		return err
	}
	send := serialized(func(ctx context.Context, prepared *smithyhttp.Request) error {
		return op.by.send(ctx, about, prepared, understand)
	})
	first := op.sdk.first()
	_, _, err := first.serialize.HandleSerialize(
		&joined{ctx, first.base}, middleware.SerializeInput{Parameters: in, Request: smithyhttp.NewStackRequest()}, send,
	)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, classify(err)
	}
	return out, nil
}

// serialized is what follows once the SDK has given a request its form.
type serialized func(context.Context, *smithyhttp.Request) error

// HandleSerialize implements middleware.SerializeHandler.
func (send serialized) HandleSerialize(
	ctx context.Context, in middleware.SerializeInput,
) (out middleware.SerializeOutput, metadata middleware.Metadata, err error) {
	return out, metadata, send(ctx, in.Request.(*smithyhttp.Request))
}

// understand gives what an answer says. It takes no answer for a success that lacks what it must have.
func (op operation[In, Out]) understand(ctx context.Context, in *In, response *http.Response) (*Out, error) {
	if response.StatusCode/100 != 2 {
		return nil, op.sdk.refusal(ctx, response)
	}
	out, err := op.read(ctx, in, response)
	if err != nil {
		_ = response.Body.Close()
		if _, ok := errors.AsType[*smithyhttp.ResponseError](err); !ok {
			err = asError(response, err)
		}
		return nil, err
	}
	return out, nil
}

// refusal is the error of an answer that is no success.
func (c *captured) refusal(ctx context.Context, response *http.Response) error {
	if err := readRefusal(response); err != nil {
		return asError(response, err)
	}
	_, err := c.deserialize(ctx, response)
	if err == nil {
		err = asError(response, strange("status %d", response.StatusCode))
	}
	return err
}

// document lets the SDK read a success that is an XML document with this root. check judges what it says, or is nil.
func document[In, Out any](by *captured, root string, check func(*Out) error) reading[In, Out] {
	return func(ctx context.Context, _ *In, response *http.Response) (*Out, error) {
		if err := readDocument(response, root); err != nil {
			return nil, err
		}
		found, err := by.deserialize(ctx, response)
		if err != nil {
			return nil, err
		}
		out := found.(*Out)
		if check != nil {
			err = check(out)
		}
		return out, err
	}
}

// answered stands for the sending of a request whose answer is there.
type answered struct{ response *smithyhttp.Response }

// Handle implements middleware.Handler.
func (a answered) Handle(context.Context, any) (any, middleware.Metadata, error) {
	return a.response, middleware.Metadata{}, nil
}

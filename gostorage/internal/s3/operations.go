package s3

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

// operations are the requests of the SDK that we make.
type operations struct {
	putObject      operation[sdk.PutObjectInput, sdk.PutObjectOutput]
	getObject      operation[sdk.GetObjectInput, sdk.GetObjectOutput]
	headObject     operation[sdk.HeadObjectInput, sdk.HeadObjectOutput]
	deleteObject   operation[sdk.DeleteObjectInput, sdk.DeleteObjectOutput]
	deleteObjects  operation[sdk.DeleteObjectsInput, sdk.DeleteObjectsOutput]
	listObjects    operation[sdk.ListObjectsV2Input, sdk.ListObjectsV2Output]
	createUpload   operation[sdk.CreateMultipartUploadInput, sdk.CreateMultipartUploadOutput]
	uploadPart     operation[sdk.UploadPartInput, sdk.UploadPartOutput]
	copyPart       operation[sdk.UploadPartCopyInput, sdk.UploadPartCopyOutput]
	copyObject     operation[sdk.CopyObjectInput, sdk.CopyObjectOutput]
	completeUpload operation[sdk.CompleteMultipartUploadInput, sdk.CompleteMultipartUploadOutput]
	abortUpload    operation[sdk.AbortMultipartUploadInput, sdk.AbortMultipartUploadOutput]
	listUploads    operation[sdk.ListMultipartUploadsInput, sdk.ListMultipartUploadsOutput]
	listParts      operation[sdk.ListPartsInput, sdk.ListPartsOutput]
}

func prepare(client *sdk.Client, by *attempts) operations {
	return operations{
		putObject: take(client.PutObject, by, rules[sdk.PutObjectInput, sdk.PutObjectOutput]{
			asks: func(in *sdk.PutObjectInput) bool { return given(in.Bucket, in.Key) }, brief: readPut,
		}),
		getObject: take(client.GetObject, by, rules[sdk.GetObjectInput, sdk.GetObjectOutput]{
			asks: func(in *sdk.GetObjectInput) bool { return given(in.Bucket, in.Key) }, brief: readGet,
		}),
		headObject: take(client.HeadObject, by, rules[sdk.HeadObjectInput, sdk.HeadObjectOutput]{
			asks: func(in *sdk.HeadObjectInput) bool { return given(in.Bucket, in.Key) }, brief: readHead,
		}),
		deleteObject: take(client.DeleteObject, by, rules[sdk.DeleteObjectInput, sdk.DeleteObjectOutput]{
			asks: func(in *sdk.DeleteObjectInput) bool { return given(in.Bucket, in.Key) }, brief: readDelete,
		}),
		deleteObjects: take(client.DeleteObjects, by, rules[sdk.DeleteObjectsInput, sdk.DeleteObjectsOutput]{
			asks: func(in *sdk.DeleteObjectsInput) bool { return given(in.Bucket) }, root: "DeleteResult",
		}),
		listObjects: take(client.ListObjectsV2, by, rules[sdk.ListObjectsV2Input, sdk.ListObjectsV2Output]{
			asks: func(in *sdk.ListObjectsV2Input) bool { return given(in.Bucket, in.Prefix) },
			root: "ListBucketResult", check: checkList,
		}),
		createUpload: take(client.CreateMultipartUpload, by,
			rules[sdk.CreateMultipartUploadInput, sdk.CreateMultipartUploadOutput]{
				asks: func(in *sdk.CreateMultipartUploadInput) bool { return given(in.Bucket, in.Key) },
				root: "InitiateMultipartUploadResult", check: checkCreate,
			}),
		uploadPart: take(client.UploadPart, by, rules[sdk.UploadPartInput, sdk.UploadPartOutput]{
			asks: func(in *sdk.UploadPartInput) bool { return given(in.Bucket, in.Key, in.UploadId) }, brief: readPart,
		}),
		copyPart: take(client.UploadPartCopy, by, rules[sdk.UploadPartCopyInput, sdk.UploadPartCopyOutput]{
			asks: func(in *sdk.UploadPartCopyInput) bool { return given(in.Bucket, in.Key, in.UploadId, in.CopySource) },
			root: "CopyPartResult", copies: true, check: checkCopyPart,
		}),
		copyObject: take(client.CopyObject, by, rules[sdk.CopyObjectInput, sdk.CopyObjectOutput]{
			asks: func(in *sdk.CopyObjectInput) bool { return given(in.Bucket, in.Key, in.CopySource) },
			root: "CopyObjectResult", copies: true, check: checkCopy,
		}),
		completeUpload: take(client.CompleteMultipartUpload, by,
			rules[sdk.CompleteMultipartUploadInput, sdk.CompleteMultipartUploadOutput]{
				asks: func(in *sdk.CompleteMultipartUploadInput) bool { return given(in.Bucket, in.Key, in.UploadId) },
				root: "CompleteMultipartUploadResult", check: checkComplete,
			}),
		abortUpload: take(client.AbortMultipartUpload, by,
			rules[sdk.AbortMultipartUploadInput, sdk.AbortMultipartUploadOutput]{
				asks:  func(in *sdk.AbortMultipartUploadInput) bool { return given(in.Bucket, in.Key, in.UploadId) },
				brief: readAbort,
			}),
		listUploads: take(client.ListMultipartUploads, by,
			rules[sdk.ListMultipartUploadsInput, sdk.ListMultipartUploadsOutput]{
				asks: func(in *sdk.ListMultipartUploadsInput) bool { return given(in.Bucket) },
				root: "ListMultipartUploadsResult",
			}),
		listParts: take(client.ListParts, by, rules[sdk.ListPartsInput, sdk.ListPartsOutput]{
			asks: func(in *sdk.ListPartsInput) bool { return given(in.Bucket, in.Key, in.UploadId) },
			root: "ListPartsResult", check: checkParts,
		}),
	}
}

// rules are what is looked at on both sides of a request.
type rules[In, Out any] struct {
	asks   func(*In) bool                          // whether a request has what it must have
	brief  func(*In, *http.Response) (*Out, error) // understands a success without the SDK; or nil
	root   string                                  // else: of the document that a success is
	copies bool                                    // and whether a success may have none
	check  func(*In, *Out) error                   // what the document must have; or nil
}

// operation is one of the SDK's: its form of a request and its understanding of an answer. What the SDK does in between
// costs more than all the rest of a small request; with one endpoint, one way to sign and one transport attempts do it.
type operation[In, Out any] struct {
	by    *attempts
	rules rules[In, Out]
	first func() steps // those whose base and serialize serve all calls; built when there is one
	idle  chan steps
	build func() steps
}

// steps are those of the SDK around the attempts of a call.
type steps struct {
	base       context.Context // what the SDK tells its steps
	serialize  middleware.SerializeMiddleware
	understand *middleware.DeserializeStep // for one answer at a time
}

// idleSteps are kept for the next calls of an operation.
const idleSteps = 16

func (op operation[In, Out]) borrow() steps {
	select {
	case idle := <-op.idle:
		return idle
	default:
		return op.build()
	}
}

func (op operation[In, Out]) giveBack(used steps) {
	select {
	case op.idle <- used:
	default:
	}
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

// take makes an operation of a method of the SDK's client.
func take[In, Out any](
	method func(context.Context, *In, ...func(*sdk.Options)) (*Out, error), by *attempts, rules rules[In, Out],
) operation[In, Out] {
	build := func() steps {
		var taken steps
		_, _ = method(context.Background(), new(In), func(o *sdk.Options) {
			o.APIOptions = append(o.APIOptions, func(built *middleware.Stack) error {
				taken.serialize, _ = built.Serialize.Get("OperationSerializer")
				taken.understand = built.Deserialize
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
	return operation[In, Out]{by: by, rules: rules, first: first, idle: idle, build: build}
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

// perform makes a request, with retries and our classes of errors.
func perform[In, Out any](ctx context.Context, about *request, in *In, op operation[In, Out]) (*Out, error) {
	if !op.rules.asks(in) {
		return nil, object.Errorf(object.Internal, "a request lacks what it must have")
	}
	about.began = time.Now()
	var out *Out
	understand := func(ctx context.Context, response *http.Response) (err error) {
		out, err = op.understand(ctx, in, response)
		return err
	}
	send := serialized(func(ctx context.Context, prepared *smithyhttp.Request) error {
		return op.by.make(ctx, about, prepared, understand)
	})
	first := op.first()
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

// serialized is what comes after the SDK has given a request its form.
type serialized func(context.Context, *smithyhttp.Request) error

// HandleSerialize implements middleware.SerializeHandler.
func (send serialized) HandleSerialize(
	ctx context.Context, in middleware.SerializeInput,
) (out middleware.SerializeOutput, metadata middleware.Metadata, err error) {
	return out, metadata, send(ctx, in.Request.(*smithyhttp.Request))
}

// understand gives what an answer says, and takes nothing for a success that has not what it must have. Of a plain one
// it reads the few headers that we look at, not all that S3 knows.
func (op operation[In, Out]) understand(ctx context.Context, in *In, response *http.Response) (*Out, error) {
	rules := op.rules
	switch {
	case response.StatusCode/100 != 2:
		if err := refusal(response); err != nil {
			return nil, asError(response, err)
		}
	case rules.brief != nil:
		out, err := rules.brief(in, response)
		if err != nil {
			_ = response.Body.Close()
			return nil, asError(response, err)
		}
		return out, nil
	case rules.copies && noResult(response):
		_ = response.Body.Close()
		return new(Out), nil
	default:
		if err := document(response, rules.root); err != nil {
			_ = response.Body.Close()
			return nil, asError(response, err)
		}
	}
	steps := op.borrow()
	defer op.giveBack(steps)
	found, _, err := steps.understand.HandleMiddleware(ctx, nil, answered{&smithyhttp.Response{Response: response}})
	if err != nil {
		return nil, err
	}
	out := found.(*Out)
	if rules.check != nil {
		if err := rules.check(in, out); err != nil {
			return nil, asError(response, err)
		}
	}
	return out, nil
}

// answered stands for the sending of a request that has its answer.
type answered struct{ response *smithyhttp.Response }

// Handle implements middleware.Handler.
func (a answered) Handle(context.Context, any) (any, middleware.Metadata, error) {
	return a.response, middleware.Metadata{}, nil
}

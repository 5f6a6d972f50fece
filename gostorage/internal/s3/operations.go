package s3

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
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

func prepare(client *sdk.Client, send sender) operations {
	return operations{
		putObject:      take(client.PutObject, send, readPut),
		getObject:      take(client.GetObject, send, readGet),
		headObject:     take(client.HeadObject, send, readHead),
		deleteObject:   take(client.DeleteObject, send, readDelete),
		deleteObjects:  take(client.DeleteObjects, send, nil),
		listObjects:    take(client.ListObjectsV2, send, nil),
		createUpload:   take(client.CreateMultipartUpload, send, nil),
		uploadPart:     take(client.UploadPart, send, readPart),
		copyPart:       take(client.UploadPartCopy, send, nil),
		copyObject:     take(client.CopyObject, send, nil),
		completeUpload: take(client.CompleteMultipartUpload, send, nil),
		abortUpload:    take(client.AbortMultipartUpload, send, nil),
		listUploads:    take(client.ListMultipartUploads, send, nil),
		listParts:      take(client.ListParts, send, nil),
	}
}

// operation is one of the SDK's with its steps built beforehand: for each call the SDK would build them anew, which costs
// more than all the rest of a small request. Steps serve one call at a time; those that stay (see needless) keep nothing
// from call to call.
type operation[In, Out any] struct {
	idle  chan steps
	build func() steps
}

type steps struct {
	handler middleware.Handler
	base    context.Context // what the SDK tells its steps
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

// take makes an operation of a method of the SDK's client. read, if there is one, understands a success in place of the
// SDK.
func take[In, Out any](
	method func(context.Context, *In, ...func(*sdk.Options)) (*Out, error), send sender,
	read func(*http.Response) (*Out, error),
) operation[In, Out] {
	build := func() steps {
		var taken steps
		var stack *middleware.Stack
		_, _ = method(context.Background(), new(In), func(o *sdk.Options) {
			o.APIOptions = append(o.APIOptions, func(built *middleware.Stack) error {
				stack = built
				return stack.Initialize.Add(taker{&taken.base}, middleware.Before)
			})
		})
		_, _ = stack.Initialize.Remove(taker{}.ID())
		if read != nil {
			understand := &brief[Out]{read: read}
			understand.full, _ = stack.Deserialize.Swap(understand.ID(), understand)
		}
		taken.handler = middleware.DecorateHandler(send, stack)
		return taken
	}
	return operation[In, Out]{idle: make(chan steps, idleSteps), build: build}
}

// joined is the context of a call, and what the SDK tells its steps.
type joined struct {
	context.Context
	base  context.Context
	about *request
}

func (j *joined) Value(key any) any {
	if key == (requestKey{}) {
		return j.about
	}
	if value := j.Context.Value(key); value != nil {
		return value
	}
	return j.base.Value(key)
}

// perform makes a request, with the SDK's retries and our classes of errors.
func perform[In, Out any](ctx context.Context, about *request, in *In, op operation[In, Out]) (*Out, error) {
	about.began = time.Now()
	steps := op.borrow()
	defer op.giveBack(steps)
	out, _, err := steps.handler.Handle(&joined{ctx, steps.base, about}, in)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, classify(err)
	}
	return out.(*Out), nil
}

// brief understands the answer to a request that is made often: the few headers that we look at, not all that S3 knows.
// Whatever is not a plain success it leaves to the SDK.
type brief[Out any] struct {
	read func(*http.Response) (*Out, error) // neither: it is left to the SDK
	full middleware.DeserializeMiddleware
}

func (b *brief[Out]) ID() string { return "OperationDeserializer" }

func (b *brief[Out]) HandleDeserialize(
	ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
) (middleware.DeserializeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	if response, ok := out.RawResponse.(*smithyhttp.Response); ok && err == nil && response.StatusCode/100 == 2 {
		result, err := b.read(response.Response)
		if err != nil {
			return out, metadata, &smithy.DeserializationError{Err: err}
		}
		if result != nil {
			out.Result = result
			return out, metadata, nil
		}
	}
	return b.full.HandleDeserialize(ctx, in, answered{out, metadata, err})
}

// answered is the rest of the steps when they are done.
type answered struct {
	out      middleware.DeserializeOutput
	metadata middleware.Metadata
	err      error
}

func (a answered) HandleDeserialize(
	context.Context, middleware.DeserializeInput,
) (middleware.DeserializeOutput, middleware.Metadata, error) {
	return a.out, a.metadata, a.err
}

// header gives a header by its canonical name, or nil.
func header(response *http.Response, name string) *string {
	if values := response.Header[name]; len(values) > 0 {
		return &values[0]
	}
	return nil
}

// empty closes the body of an answer that should have none, and tells whether it has.
func empty(response *http.Response) bool {
	if response.ContentLength != 0 {
		return false
	}
	_ = response.Body.Close()
	return true
}

var errNoTag = errors.New("an object without an ETag")

// tag is what every answer has that tells of an object. One without it is no answer of S3, whatever its status.
func tag(response *http.Response) (*string, error) {
	if found := header(response, "Etag"); found != nil {
		return found, nil
	}
	_ = response.Body.Close()
	return nil, errNoTag
}

func readPut(response *http.Response) (*sdk.PutObjectOutput, error) {
	if !empty(response) {
		return nil, nil
	}
	etag, err := tag(response)
	return &sdk.PutObjectOutput{ETag: etag}, err
}

func readPart(response *http.Response) (*sdk.UploadPartOutput, error) {
	if !empty(response) {
		return nil, nil
	}
	etag, err := tag(response)
	return &sdk.UploadPartOutput{ETag: etag}, err
}

func readDelete(response *http.Response) (*sdk.DeleteObjectOutput, error) {
	if response.StatusCode != http.StatusNoContent {
		return nil, nil
	}
	_ = response.Body.Close()
	return &sdk.DeleteObjectOutput{}, nil
}

func readHead(response *http.Response) (*sdk.HeadObjectOutput, error) {
	_ = response.Body.Close()
	etag, err := tag(response)
	return &sdk.HeadObjectOutput{
		ContentLength: &response.ContentLength, ETag: etag, Metadata: metadataOf(response),
		LastModified: modified(response),
	}, err
}

func readGet(response *http.Response) (*sdk.GetObjectOutput, error) {
	etag, err := tag(response)
	return &sdk.GetObjectOutput{
		Body: response.Body, ContentLength: &response.ContentLength, ContentRange: header(response, "Content-Range"),
		ETag: etag, Metadata: metadataOf(response),
		ChecksumCRC64NVME: header(response, "X-Amz-Checksum-Crc64nvme"),
		ChecksumType:      types.ChecksumType(aws.ToString(header(response, "X-Amz-Checksum-Type"))),
	}, err
}

func modified(response *http.Response) *time.Time {
	at, err := http.ParseTime(response.Header.Get("Last-Modified"))
	if err != nil {
		return nil
	}
	return &at
}

func metadataOf(response *http.Response) map[string]string {
	var found map[string]string
	for name, values := range response.Header {
		if rest, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
			if found == nil {
				found = map[string]string{}
			}
			found[strings.ToLower(rest)] = values[0]
		}
	}
	return found
}

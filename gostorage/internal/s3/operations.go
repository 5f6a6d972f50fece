package s3

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
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

func prepare(client *sdk.Client, by *attempts) operations {
	return operations{
		putObject:      take(client.PutObject, by, readPut),
		getObject:      take(client.GetObject, by, readGet),
		headObject:     take(client.HeadObject, by, readHead),
		deleteObject:   take(client.DeleteObject, by, readDelete),
		deleteObjects:  take(client.DeleteObjects, by, nil),
		listObjects:    take(client.ListObjectsV2, by, nil),
		createUpload:   take(client.CreateMultipartUpload, by, nil),
		uploadPart:     take(client.UploadPart, by, readPart),
		copyPart:       take(client.UploadPartCopy, by, nil),
		copyObject:     take(client.CopyObject, by, nil),
		completeUpload: take(client.CompleteMultipartUpload, by, nil),
		abortUpload:    take(client.AbortMultipartUpload, by, nil),
		listUploads:    take(client.ListMultipartUploads, by, nil),
		listParts:      take(client.ListParts, by, nil),
	}
}

// operation is one of the SDK's: its form of a request and its understanding of an answer. What the SDK does in between
// costs more than all the rest of a small request; with one endpoint, one way to sign and one transport attempts do it.
type operation[In, Out any] struct {
	by    *attempts
	brief func(*http.Response) (*Out, error) // understands a plain success, in place of the SDK; or nil
	first func() steps                       // those whose base and serialize serve all calls; built when there is one
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
	method func(context.Context, *In, ...func(*sdk.Options)) (*Out, error), by *attempts,
	brief func(*http.Response) (*Out, error),
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
	return operation[In, Out]{by: by, brief: brief, first: first, idle: idle, build: build}
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
	about.began = time.Now()
	var out *Out
	understand := func(ctx context.Context, response *http.Response) (err error) {
		out, err = op.understand(ctx, response)
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

// understand gives what an answer says: of a plain success the few headers that we look at, not all that S3 knows.
func (op operation[In, Out]) understand(ctx context.Context, response *http.Response) (*Out, error) {
	if op.brief != nil && response.StatusCode/100 == 2 {
		out, err := op.brief(response)
		if err != nil {
			err = &smithyhttp.ResponseError{
				Response: &smithyhttp.Response{Response: response}, Err: &smithy.DeserializationError{Err: err},
			}
		}
		if out != nil || err != nil {
			return out, err
		}
	}
	steps := op.borrow()
	defer op.giveBack(steps)
	out, _, err := steps.understand.HandleMiddleware(ctx, nil, answered{&smithyhttp.Response{Response: response}})
	if err != nil {
		return nil, err
	}
	return out.(*Out), nil
}

// answered stands for the sending of a request that has its answer.
type answered struct{ response *smithyhttp.Response }

// Handle implements middleware.Handler.
func (a answered) Handle(context.Context, any) (any, middleware.Metadata, error) {
	return a.response, middleware.Metadata{}, nil
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

package s3api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// MaxExpires is the longest time for which Signature Version 4 signs a URL.
const MaxExpires = 7 * 24 * time.Hour

// emptyMD5 stands for the size of an empty body: a signature of this kind cannot cover a Content-Length of 0.
const emptyMD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="

// noETag is a condition on the source of a copy that no object fulfils. MinIO takes an x-amz-copy-source that is not
// signed: without this, whoever has the URL of a PUT could read any object by a copy. AWS refuses such a header itself,
// and so it is not asked to take the condition.
const noETag = `"none"`

func amazon(host string) bool {
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

// Presign gives a URL by which anybody can make one request for an object until it expires. Nothing is sent for it, but
// for credentials that have to be fetched. Whoever makes the request has to send the headers that are signed: see
// headersOf. Options that a put would have to send as headers are left out: encryption and storage class.
func (b *Bucket) Presign(ctx context.Context, key string, link object.Link) (object.Linked, error) {
	c := b.client
	if link.Expires < time.Second || link.Expires > MaxExpires {
		return object.Linked{}, object.Errorf(object.Internal, "a URL cannot expire after %v", link.Expires)
	}
	if link.Upload != "" {
		return b.presignUpload(ctx, key, link)
	}
	switch link.Method {
	case http.MethodGet:
		return c.getObject.presign(ctx, b, link, &sdk.GetObjectInput{
			Bucket: &b.config.Bucket, Key: b.path(key),
			ResponseContentType: optional(link.ContentType), ResponseContentDisposition: optional(link.Disposition),
		})
	case http.MethodHead:
		return c.headObject.presign(ctx, b, link, &sdk.HeadObjectInput{
			Bucket: &b.config.Bucket, Key: b.path(key),
			ResponseContentType: optional(link.ContentType), ResponseContentDisposition: optional(link.Disposition),
		})
	case http.MethodPut:
		return c.putObject.presign(ctx, b, link, &sdk.PutObjectInput{Bucket: &b.config.Bucket, Key: b.path(key)})
	case http.MethodPost:
		return c.createUpload.presign(ctx, b, link, &sdk.CreateMultipartUploadInput{Bucket: &b.config.Bucket, Key: b.path(key)})
	default:
		return object.Linked{}, object.Errorf(object.Internal, "there are no URLs for %q", link.Method)
	}
}

// presignUpload does the same for a request about a multipart upload.
func (b *Bucket) presignUpload(ctx context.Context, key string, link object.Link) (object.Linked, error) {
	c, bucket, path, id := b.client, &b.config.Bucket, b.path(key), &link.Upload
	switch link.Method {
	case http.MethodGet:
		return c.listParts.presign(ctx, b, link, &sdk.ListPartsInput{Bucket: bucket, Key: path, UploadId: id})
	case http.MethodPut:
		return c.uploadPart.presign(ctx, b, link, &sdk.UploadPartInput{
			Bucket: bucket, Key: path, UploadId: id, PartNumber: &link.Part,
		})
	case http.MethodPost:
		return c.completeUpload.presign(ctx, b, link, &sdk.CompleteMultipartUploadInput{Bucket: bucket, Key: path, UploadId: id})
	case http.MethodDelete:
		return c.abortUpload.presign(ctx, b, link, &sdk.AbortMultipartUploadInput{Bucket: bucket, Key: path, UploadId: id})
	default:
		return object.Linked{}, object.Errorf(object.Internal, "there are no URLs of uploads for %q", link.Method)
	}
}

// headersOf are those that the request of a link has to have, beside its Content-Length.
func headersOf(link object.Link, host string) map[string]string {
	headers := map[string]string{}
	if link.ContentType != "" && link.Upload == "" && (link.Method == http.MethodPut || link.Method == http.MethodPost) {
		headers["Content-Type"] = link.ContentType
	}
	if link.CreateOnly && (link.Method == http.MethodPut || link.Method == http.MethodPost) {
		headers["If-None-Match"] = "*"
	}
	if link.Method == http.MethodPut && link.Size == 0 {
		headers[md5Header] = emptyMD5
	}
	if link.NoCopy && link.Method == http.MethodPut && !amazon(host) {
		headers["X-Amz-Copy-Source-If-Match"] = noETag
	}
	return headers
}

// presign signs the URL of a request that somebody else will make, to the host that clients see.
func (op operation[In, Out]) presign(ctx context.Context, b *Bucket, link object.Link, in *In) (object.Linked, error) {
	if !op.filled(in) {
		return object.Linked{}, object.Errorf(object.Internal, "a request lacks what it must have")
	}
	linked := object.Linked{Headers: headersOf(link, b.client.resolved.Host.Hostname())}
	sign := serialized(func(ctx context.Context, prepared *smithyhttp.Request) error {
		identity, err := op.by.credentials.Retrieve(ctx)
		if err != nil {
			return err
		}
		leadTo(prepared.URL, b.client.resolved.Public)
		prepared.Header, prepared.ContentLength = http.Header{}, 0
		for name, value := range linked.Headers {
			prepared.Header.Set(name, value)
		}
		if link.Method == http.MethodPut {
			prepared.ContentLength = max(link.Size, 0)
		}
		query := prepared.URL.Query()
		query.Set("X-Amz-Expires", strconv.FormatInt(int64(link.Expires/time.Second), 10))
		prepared.URL.RawQuery = query.Encode()
		now := time.Now().Add(time.Duration(op.by.skew.Load()))
		linked.URL, _, err = op.by.signer.PresignHTTP(
			ctx, identity, prepared.Request, UnsignedPayload, "s3", op.by.region, now, asItIs,
		)
		return err
	})
	first := op.sdk.first()
	_, _, err := first.serialize.HandleSerialize(
		&joined{ctx, first.base}, middleware.SerializeInput{Parameters: in, Request: smithyhttp.NewStackRequest()}, sign,
	)
	if err != nil && ctx.Err() != nil {
		return object.Linked{}, context.Cause(ctx)
	}
	if err != nil {
		return object.Linked{}, classify(err)
	}
	return linked, nil
}

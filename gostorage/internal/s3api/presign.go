package s3api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// MaxExpires is the longest time for which Signature Version 4 signs a URL.
const MaxExpires = 7 * 24 * time.Hour

// Presign gives a URL by which anybody can make one request for an object until it expires. Nothing is sent for it, but
// for credentials that have to be fetched. Options that a put would have to send as headers are left out: encryption and
// storage class.
func (b *Bucket) Presign(ctx context.Context, key string, link object.Link) (string, error) {
	c := b.client
	if link.Expires < time.Second || link.Expires > MaxExpires {
		return "", object.Errorf(object.Internal, "a URL cannot expire after %v", link.Expires)
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
	default:
		return "", object.Errorf(object.Internal, "there are no URLs for %q", link.Method)
	}
}

// presign signs the URL of a request that somebody else will make, to the host that clients see.
func (op operation[In, Out]) presign(ctx context.Context, b *Bucket, link object.Link, in *In) (signed string, err error) {
	if !op.filled(in) {
		return "", object.Errorf(object.Internal, "a request lacks what it must have")
	}
	sign := serialized(func(ctx context.Context, prepared *smithyhttp.Request) error {
		identity, err := op.by.credentials.Retrieve(ctx)
		if err != nil {
			return err
		}
		leadTo(prepared.URL, b.client.resolved.Public)
		prepared.Header, prepared.ContentLength = http.Header{}, 0
		if link.Method == http.MethodPut && link.ContentType != "" {
			prepared.Header.Set("Content-Type", link.ContentType) // signed: whoever puts has to send it
		}
		query := prepared.URL.Query()
		query.Set("X-Amz-Expires", strconv.FormatInt(int64(link.Expires/time.Second), 10))
		prepared.URL.RawQuery = query.Encode()
		now := time.Now().Add(time.Duration(op.by.skew.Load()))
		signed, _, err = op.by.signer.PresignHTTP(
			ctx, identity, prepared.Request, UnsignedPayload, "s3", op.by.region, now, asItIs,
		)
		return err
	})
	first := op.sdk.first()
	_, _, err = first.serialize.HandleSerialize(
		&joined{ctx, first.base}, middleware.SerializeInput{Parameters: in, Request: smithyhttp.NewStackRequest()}, sign,
	)
	if err != nil && ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", classify(err)
	}
	return signed, nil
}

package s3

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// asked is a request as a server sees it.
type asked struct {
	line    string
	headers map[string]string
	body    string
}

// otherwise are the headers in which a request of ours differs from that of the SDK, and why that is right.
var otherwise = map[string]string{
	"User-Agent":            "it names us",
	"Amz-Sdk-Invocation-Id": "nobody needs it",
	"Amz-Sdk-Request":       "nobody needs it",
	"Accept-Encoding":       "the SDK leaves it to Go's client; ours is not signed, since proxies change it",
	"Authorization":         "what is signed is compared by itself",
	"X-Amz-Date":            "it is now",
}

// ofDeleteObjects are those of the one request that S3 always wants a checksum for: ours has one that every store knows.
var ofDeleteObjects = map[string]string{
	"Content-Md5":                  "ours",
	"X-Amz-Checksum-Crc32":         "theirs",
	"X-Amz-Sdk-Checksum-Algorithm": "theirs",
}

// parity is one operation with some inputs, asked for by us and by the SDK.
type parity func(*testing.T, *Store, *sdk.Client, func() asked)

func same[In, Out any](
	op func(*Store) operation[In, Out], method func(*sdk.Client) func(context.Context, *In, ...func(*sdk.Options)) (*Out, error),
	inputs ...func() *In,
) parity {
	return func(t *testing.T, store *Store, client *sdk.Client, last func() asked) {
		for i, input := range inputs {
			about, differ := &request{}, maps.Clone(otherwise)
			if _, about.md5 = any(input()).(*sdk.DeleteObjectsInput); about.md5 {
				maps.Copy(differ, ofDeleteObjects)
			}
			if _, err := perform(t.Context(), about, input(), op(store)); err == nil {
				t.Fatal("the server refuses everything, and this was a success")
			}
			ours := last()
			if _, err := method(client)(t.Context(), input()); err == nil {
				t.Fatal("the server refuses everything, and the SDK has had a success")
			}
			theirs := last()
			if ours.line != theirs.line {
				t.Errorf("input %d: ours is %s, theirs %s", i, ours.line, theirs.line)
			}
			if ours.body != theirs.body {
				t.Errorf("input %d: our body is %q, theirs %q", i, ours.body, theirs.body)
			}
			names := slices.Sorted(maps.Keys(ours.headers))
			for name := range theirs.headers {
				if _, ok := ours.headers[name]; !ok {
					names = append(names, name)
				}
			}
			for _, name := range names {
				if _, known := differ[name]; !known && ours.headers[name] != theirs.headers[name] {
					t.Errorf("input %d: our %s is %q, theirs %q", i, name, ours.headers[name], theirs.headers[name])
				}
			}
			if we, they := signedHeaders(ours, differ), signedHeaders(theirs, differ); !slices.Equal(we, they) {
				t.Errorf("input %d: we sign %s, they %s", i, we, they)
			}
		}
	}
}

// signedHeaders are those that the signature of a request is over, without those that differ.
func signedHeaders(of asked, differ map[string]string) []string {
	_, list, _ := strings.Cut(of.headers["Authorization"], "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	return slices.DeleteFunc(strings.Split(list, ";"), func(name string) bool {
		_, differs := differ[http.CanonicalHeaderKey(name)]
		return differs && name != "x-amz-date"
	})
}

// What leaves has the form that the stock SDK gives it: an update that moves a header to a step which is not captured
// shows here. Whatever of an input is used anywhere in this package is in one of these.
func TestRequestsAreThoseOfTheSDK(t *testing.T) {
	seen := make(chan asked, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		one := asked{
			line: r.Method + " " + r.RequestURI, headers: map[string]string{"Content-Length": fmt.Sprint(r.ContentLength)},
			body: string(body),
		}
		for name, values := range r.Header {
			one.headers[name] = strings.Join(values, ", ")
		}
		seen <- one
		w.WriteHeader(http.StatusForbidden)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
		}
	}))
	defer server.Close()
	last := func() asked { return <-seen }
	store := open(t, server.URL, func(c *Config) { c.MaxAttempts, c.Region = 1, "eu-west-1" })
	defer func() { _ = store.Close() }()
	client := sdk.New(sdk.Options{
		Region: "eu-west-1", BaseEndpoint: &server.URL, UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials:                credentials.NewStaticCredentialsProvider("key", "secretsecret", ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})

	bucket, id, etag, source := aws.String("tests"), aws.String("the/id=+"), aws.String(`"etag"`), aws.String("tests/f/a%20b")
	metadata := map[string]string{"Name": "some value", "gostorage-sha256": strings.Repeat("0", 64)}
	sum := aws.String("AAAAAAAAAAA=")
	body := func() io.Reader { return strings.NewReader("some bytes") }
	for _, key := range []*string{aws.String("f/a"), aws.String("f/ä ö/~'()*!+&=?#%41;:@,$")} {
		for name, compared := range map[string]parity{
			"PutObject": same(
				func(s *Store) operation[sdk.PutObjectInput, sdk.PutObjectOutput] { return s.client.putObject },
				func(c *sdk.Client) func(context.Context, *sdk.PutObjectInput, ...func(*sdk.Options)) (*sdk.PutObjectOutput, error) {
					return c.PutObject
				},
				func() *sdk.PutObjectInput { return &sdk.PutObjectInput{Bucket: bucket, Key: key, Body: body()} },
				func() *sdk.PutObjectInput {
					return &sdk.PutObjectInput{
						Bucket: bucket, Key: key, Body: body(), ContentType: aws.String("text/plain; charset=utf-8"), Metadata: metadata,
						ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: aws.String("arn:key"),
						StorageClass: types.StorageClassStandardIa, IfNoneMatch: aws.String("*"),
					}
				},
				func() *sdk.PutObjectInput {
					return &sdk.PutObjectInput{Bucket: bucket, Key: key, Body: body(), ChecksumCRC64NVME: sum}
				},
				func() *sdk.PutObjectInput {
					return &sdk.PutObjectInput{Bucket: bucket, Key: key, Body: body(), ChecksumCRC32: sum}
				},
				func() *sdk.PutObjectInput {
					return &sdk.PutObjectInput{Bucket: bucket, Key: key, Body: body(), ChecksumSHA256: sum}
				},
			),
			"GetObject": same(
				func(s *Store) operation[sdk.GetObjectInput, sdk.GetObjectOutput] { return s.client.getObject },
				func(c *sdk.Client) func(context.Context, *sdk.GetObjectInput, ...func(*sdk.Options)) (*sdk.GetObjectOutput, error) {
					return c.GetObject
				},
				func() *sdk.GetObjectInput { return &sdk.GetObjectInput{Bucket: bucket, Key: key} },
				func() *sdk.GetObjectInput {
					return &sdk.GetObjectInput{
						Bucket: bucket, Key: key, Range: aws.String("bytes=5-9"), IfMatch: etag, ChecksumMode: types.ChecksumModeEnabled,
					}
				},
			),
			"HeadObject": same(
				func(s *Store) operation[sdk.HeadObjectInput, sdk.HeadObjectOutput] { return s.client.headObject },
				func(c *sdk.Client) func(context.Context, *sdk.HeadObjectInput, ...func(*sdk.Options)) (*sdk.HeadObjectOutput, error) {
					return c.HeadObject
				},
				func() *sdk.HeadObjectInput { return &sdk.HeadObjectInput{Bucket: bucket, Key: key} },
				func() *sdk.HeadObjectInput {
					return &sdk.HeadObjectInput{Bucket: bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled}
				},
			),
			"DeleteObject": same(
				func(s *Store) operation[sdk.DeleteObjectInput, sdk.DeleteObjectOutput] { return s.client.deleteObject },
				func(c *sdk.Client) func(context.Context, *sdk.DeleteObjectInput, ...func(*sdk.Options)) (*sdk.DeleteObjectOutput, error) {
					return c.DeleteObject
				},
				func() *sdk.DeleteObjectInput { return &sdk.DeleteObjectInput{Bucket: bucket, Key: key} },
			),
			"DeleteObjects": same(
				func(s *Store) operation[sdk.DeleteObjectsInput, sdk.DeleteObjectsOutput] {
					return s.client.deleteObjects
				},
				func(c *sdk.Client) func(context.Context, *sdk.DeleteObjectsInput, ...func(*sdk.Options)) (*sdk.DeleteObjectsOutput, error) {
					return c.DeleteObjects
				},
				func() *sdk.DeleteObjectsInput {
					return &sdk.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: key}, {Key: id}}}}
				},
			),
			"ListObjectsV2": same(
				func(s *Store) operation[sdk.ListObjectsV2Input, sdk.ListObjectsV2Output] { return s.client.listObjects },
				func(c *sdk.Client) func(context.Context, *sdk.ListObjectsV2Input, ...func(*sdk.Options)) (*sdk.ListObjectsV2Output, error) {
					return c.ListObjectsV2
				},
				func() *sdk.ListObjectsV2Input { return &sdk.ListObjectsV2Input{Bucket: bucket, Prefix: key} },
				func() *sdk.ListObjectsV2Input {
					return &sdk.ListObjectsV2Input{
						Bucket: bucket, Prefix: key, EncodingType: types.EncodingTypeUrl, ContinuationToken: aws.String("to=ken/+"),
						StartAfter: key,
					}
				},
			),
			"CreateMultipartUpload": same(
				func(s *Store) operation[sdk.CreateMultipartUploadInput, sdk.CreateMultipartUploadOutput] {
					return s.client.createUpload
				},
				func(c *sdk.Client) func(context.Context, *sdk.CreateMultipartUploadInput, ...func(*sdk.Options)) (*sdk.CreateMultipartUploadOutput, error) {
					return c.CreateMultipartUpload
				},
				func() *sdk.CreateMultipartUploadInput {
					return &sdk.CreateMultipartUploadInput{Bucket: bucket, Key: key}
				},
				func() *sdk.CreateMultipartUploadInput {
					return &sdk.CreateMultipartUploadInput{
						Bucket: bucket, Key: key, ContentType: aws.String("text/plain"), Metadata: metadata,
						ServerSideEncryption: types.ServerSideEncryptionAes256, StorageClass: types.StorageClassStandardIa,
						ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme, ChecksumType: types.ChecksumTypeFullObject,
					}
				},
			),
			"UploadPart": same(
				func(s *Store) operation[sdk.UploadPartInput, sdk.UploadPartOutput] { return s.client.uploadPart },
				func(c *sdk.Client) func(context.Context, *sdk.UploadPartInput, ...func(*sdk.Options)) (*sdk.UploadPartOutput, error) {
					return c.UploadPart
				},
				func() *sdk.UploadPartInput {
					return &sdk.UploadPartInput{Bucket: bucket, Key: key, UploadId: id, PartNumber: aws.Int32(7), Body: body()}
				},
				func() *sdk.UploadPartInput {
					return &sdk.UploadPartInput{
						Bucket: bucket, Key: key, UploadId: id, PartNumber: aws.Int32(10_000), Body: body(), ChecksumCRC64NVME: sum,
					}
				},
			),
			"UploadPartCopy": same(
				func(s *Store) operation[sdk.UploadPartCopyInput, sdk.UploadPartCopyOutput] { return s.client.copyPart },
				func(c *sdk.Client) func(context.Context, *sdk.UploadPartCopyInput, ...func(*sdk.Options)) (*sdk.UploadPartCopyOutput, error) {
					return c.UploadPartCopy
				},
				func() *sdk.UploadPartCopyInput {
					return &sdk.UploadPartCopyInput{
						Bucket: bucket, Key: key, UploadId: id, PartNumber: aws.Int32(1), CopySource: source, CopySourceIfMatch: etag,
						CopySourceRange: aws.String("bytes=0-9"),
					}
				},
			),
			"CopyObject": same(
				func(s *Store) operation[sdk.CopyObjectInput, sdk.CopyObjectOutput] { return s.client.copyObject },
				func(c *sdk.Client) func(context.Context, *sdk.CopyObjectInput, ...func(*sdk.Options)) (*sdk.CopyObjectOutput, error) {
					return c.CopyObject
				},
				func() *sdk.CopyObjectInput {
					return &sdk.CopyObjectInput{
						Bucket: bucket, Key: key, CopySource: source, CopySourceIfMatch: etag,
						MetadataDirective: types.MetadataDirectiveReplace, ContentType: aws.String("text/plain"), Metadata: metadata,
						ServerSideEncryption: types.ServerSideEncryptionAes256, StorageClass: types.StorageClassStandardIa,
						ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
					}
				},
			),
			"CompleteMultipartUpload": same(
				func(s *Store) operation[sdk.CompleteMultipartUploadInput, sdk.CompleteMultipartUploadOutput] {
					return s.client.completeUpload
				},
				func(c *sdk.Client) func(context.Context, *sdk.CompleteMultipartUploadInput, ...func(*sdk.Options)) (*sdk.CompleteMultipartUploadOutput, error) {
					return c.CompleteMultipartUpload
				},
				func() *sdk.CompleteMultipartUploadInput {
					return &sdk.CompleteMultipartUploadInput{
						Bucket: bucket, Key: key, UploadId: id, IfNoneMatch: aws.String("*"), ChecksumCRC64NVME: sum,
						ChecksumType: types.ChecksumTypeFullObject, MpuObjectSize: aws.Int64(12),
						MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{
							{PartNumber: aws.Int32(1), ETag: etag, ChecksumCRC64NVME: sum}, {PartNumber: aws.Int32(2), ETag: etag},
						}},
					}
				},
			),
			"AbortMultipartUpload": same(
				func(s *Store) operation[sdk.AbortMultipartUploadInput, sdk.AbortMultipartUploadOutput] {
					return s.client.abortUpload
				},
				func(c *sdk.Client) func(context.Context, *sdk.AbortMultipartUploadInput, ...func(*sdk.Options)) (*sdk.AbortMultipartUploadOutput, error) {
					return c.AbortMultipartUpload
				},
				func() *sdk.AbortMultipartUploadInput {
					return &sdk.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id}
				},
			),
			"ListMultipartUploads": same(
				func(s *Store) operation[sdk.ListMultipartUploadsInput, sdk.ListMultipartUploadsOutput] {
					return s.client.listUploads
				},
				func(c *sdk.Client) func(context.Context, *sdk.ListMultipartUploadsInput, ...func(*sdk.Options)) (*sdk.ListMultipartUploadsOutput, error) {
					return c.ListMultipartUploads
				},
				func() *sdk.ListMultipartUploadsInput {
					return &sdk.ListMultipartUploadsInput{Bucket: bucket, Prefix: key, KeyMarker: key, EncodingType: types.EncodingTypeUrl}
				},
			),
			"ListParts": same(
				func(s *Store) operation[sdk.ListPartsInput, sdk.ListPartsOutput] { return s.client.listParts },
				func(c *sdk.Client) func(context.Context, *sdk.ListPartsInput, ...func(*sdk.Options)) (*sdk.ListPartsOutput, error) {
					return c.ListParts
				},
				func() *sdk.ListPartsInput {
					return &sdk.ListPartsInput{Bucket: bucket, Key: key, UploadId: id, PartNumberMarker: aws.String("1000")}
				},
			),
		} {
			t.Run(name, func(t *testing.T) { compared(t, store, client, last) })
		}
	}
}

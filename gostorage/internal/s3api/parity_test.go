package s3api

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
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

// wire is where the requests of both arrive: a server that refuses everything.
type wire struct {
	body *strings.Reader // of those inputs that have one: it is rewound before each request
	seen chan asked
}

// asks gives what arrives of a request that must be refused.
func (w wire) asks(t *testing.T, send func() error) asked {
	_, _ = w.body.Seek(0, io.SeekStart)
	if send() == nil {
		t.Fatal("the server refuses everything, and this was a success")
	}
	return <-w.seen
}

// same compares what we send for these inputs with what the SDK does.
func same[In, Out, Raw any](
	t *testing.T, w wire, op operation[In, Out],
	method func(context.Context, *In, ...func(*sdk.Options)) (*Raw, error), inputs ...*In,
) {
	t.Helper()
	for _, input := range inputs {
		about, differ := &request{}, maps.Clone(otherwise)
		if _, about.md5 = any(input).(*sdk.DeleteObjectsInput); about.md5 {
			maps.Copy(differ, ofDeleteObjects)
		}
		ours := w.asks(t, func() error { _, err := op.do(t.Context(), about, input); return err })
		theirs := w.asks(t, func() error { _, err := method(t.Context(), input); return err })
		if ours.line != theirs.line {
			t.Errorf("ours is %s, theirs %s", ours.line, theirs.line)
		}
		if ours.body != theirs.body {
			t.Errorf("%s: our body is %q, theirs %q", ours.line, ours.body, theirs.body)
		}
		names := maps.Clone(theirs.headers)
		maps.Copy(names, ours.headers)
		for name := range names {
			if _, known := differ[name]; !known && ours.headers[name] != theirs.headers[name] {
				t.Errorf("%s: our %s is %q, theirs %q", ours.line, name, ours.headers[name], theirs.headers[name])
			}
		}
		if we, they := signedHeaders(ours, differ), signedHeaders(theirs, differ); !slices.Equal(we, they) {
			t.Errorf("%s: we sign %s, they %s", ours.line, we, they)
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
	w := wire{body: strings.NewReader("some bytes"), seen: make(chan asked, 1)}
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		one := asked{
			line: r.Method + " " + r.RequestURI, headers: map[string]string{"Content-Length": fmt.Sprint(r.ContentLength)},
			body: string(body),
		}
		for name, values := range r.Header {
			one.headers[name] = strings.Join(values, ", ")
		}
		w.seen <- one
		answer.WriteHeader(http.StatusForbidden)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(answer, "<Error><Code>AccessDenied</Code></Error>")
		}
	}))
	defer server.Close()
	opened, err := Open(Config{Options: awsconfig.Options{
		Bucket: "tests", AccessKey: "key", SecretKey: "secretsecret", Region: "eu-west-1", Endpoint: server.URL,
		AddressingStyle: "path", ConnectTimeout: 10, ReadTimeout: 30, MaxAttempts: 1, MaxConnections: 1,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Unref()
	client := sdk.New(sdk.Options{
		Region: "eu-west-1", BaseEndpoint: &server.URL, UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials:                credentials.NewStaticCredentialsProvider("key", "secretsecret", ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})

	bucket, id, etag, source := aws.String("tests"), aws.String("the/id=+"), aws.String(`"etag"`), aws.String("tests/f/a%20b")
	metadata := map[string]string{"Name": "some value", "gostorage-sha256": strings.Repeat("0", 64)}
	sum := aws.String("AAAAAAAAAAA=")
	for _, key := range []*string{aws.String("f/a"), aws.String("f/ä ö/~'()*!+&=?#%41;:@,$")} {
		same(t, w, opened.client.putObject, client.PutObject,
			&sdk.PutObjectInput{Bucket: bucket, Key: key, Body: w.body},
			&sdk.PutObjectInput{
				Bucket: bucket, Key: key, Body: w.body, ContentType: aws.String("text/plain; charset=utf-8"), Metadata: metadata,
				ServerSideEncryption: types.ServerSideEncryptionAwsKms, SSEKMSKeyId: aws.String("arn:key"),
				StorageClass: types.StorageClassStandardIa, IfNoneMatch: aws.String("*"),
			},
			&sdk.PutObjectInput{Bucket: bucket, Key: key, Body: w.body, ChecksumCRC64NVME: sum},
			&sdk.PutObjectInput{Bucket: bucket, Key: key, Body: w.body, ChecksumCRC32: sum},
			&sdk.PutObjectInput{Bucket: bucket, Key: key, Body: w.body, ChecksumSHA256: sum},
		)
		same(t, w, opened.client.getObject, client.GetObject,
			&sdk.GetObjectInput{Bucket: bucket, Key: key},
			&sdk.GetObjectInput{
				Bucket: bucket, Key: key, Range: aws.String("bytes=5-9"), IfMatch: etag, ChecksumMode: types.ChecksumModeEnabled,
			},
		)
		same(t, w, opened.client.headObject, client.HeadObject,
			&sdk.HeadObjectInput{Bucket: bucket, Key: key},
			&sdk.HeadObjectInput{Bucket: bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled},
		)
		same(t, w, opened.client.headBucket, client.HeadBucket, &sdk.HeadBucketInput{Bucket: bucket})
		same(t, w, opened.client.deleteObject, client.DeleteObject,
			&sdk.DeleteObjectInput{Bucket: bucket, Key: key},
		)
		same(t, w, opened.client.deleteObjects, client.DeleteObjects,
			&sdk.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: key}, {Key: id}}}},
		)
		same(t, w, opened.client.listObjects, client.ListObjectsV2,
			&sdk.ListObjectsV2Input{Bucket: bucket, Prefix: key},
			&sdk.ListObjectsV2Input{
				Bucket: bucket, Prefix: key, EncodingType: types.EncodingTypeUrl, ContinuationToken: aws.String("to=ken/+"),
				StartAfter: key,
			},
		)
		same(t, w, opened.client.createUpload, client.CreateMultipartUpload,
			&sdk.CreateMultipartUploadInput{Bucket: bucket, Key: key},
			&sdk.CreateMultipartUploadInput{
				Bucket: bucket, Key: key, ContentType: aws.String("text/plain"), Metadata: metadata,
				ServerSideEncryption: types.ServerSideEncryptionAes256, StorageClass: types.StorageClassStandardIa,
				ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme, ChecksumType: types.ChecksumTypeFullObject,
			},
		)
		same(t, w, opened.client.uploadPart, client.UploadPart,
			&sdk.UploadPartInput{Bucket: bucket, Key: key, UploadId: id, PartNumber: aws.Int32(7), Body: w.body},
			&sdk.UploadPartInput{
				Bucket: bucket, Key: key, UploadId: id, PartNumber: aws.Int32(10_000), Body: w.body, ChecksumCRC64NVME: sum,
			},
		)
		same(t, w, opened.client.copyPart, client.UploadPartCopy,
			&sdk.UploadPartCopyInput{
				Bucket: bucket, Key: key, UploadId: id, PartNumber: aws.Int32(1), CopySource: source, CopySourceIfMatch: etag,
				CopySourceRange: aws.String("bytes=0-9"),
			},
		)
		same(t, w, opened.client.copyObject, client.CopyObject,
			&sdk.CopyObjectInput{
				Bucket: bucket, Key: key, CopySource: source, CopySourceIfMatch: etag,
				MetadataDirective: types.MetadataDirectiveReplace, ContentType: aws.String("text/plain"), Metadata: metadata,
				ServerSideEncryption: types.ServerSideEncryptionAes256, StorageClass: types.StorageClassStandardIa,
				ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
			},
		)
		same(t, w, opened.client.completeUpload, client.CompleteMultipartUpload,
			&sdk.CompleteMultipartUploadInput{
				Bucket: bucket, Key: key, UploadId: id, IfNoneMatch: aws.String("*"), ChecksumCRC64NVME: sum,
				ChecksumType: types.ChecksumTypeFullObject, MpuObjectSize: aws.Int64(12),
				MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{
					{PartNumber: aws.Int32(1), ETag: etag, ChecksumCRC64NVME: sum}, {PartNumber: aws.Int32(2), ETag: etag},
				}},
			},
		)
		same(t, w, opened.client.abortUpload, client.AbortMultipartUpload,
			&sdk.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id},
		)
		same(t, w, opened.client.listUploads, client.ListMultipartUploads,
			&sdk.ListMultipartUploadsInput{Bucket: bucket, Prefix: key, KeyMarker: key, EncodingType: types.EncodingTypeUrl},
		)
		same(t, w, opened.client.listParts, client.ListParts,
			&sdk.ListPartsInput{Bucket: bucket, Key: key, UploadId: id, PartNumberMarker: aws.String("1000")},
		)
	}
}

// A URL has what that of the stock SDK has, but for the signature: the two are signed at different times.
func TestURLsAreThoseOfTheSDK(t *testing.T) {
	options := awsconfig.Options{
		Bucket: "bucket", AccessKey: "key", SecretKey: "secret", SessionToken: "a+token", Region: "eu-central-1",
		Endpoint: "http://s3.example.com:9000", Verify: true, ConnectTimeout: 1, ReadTimeout: 1, MaxAttempts: 1, MaxConnections: 1,
	}
	bucket, err := Open(Config{Prefix: "final/", Options: options})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Unref()
	theirs := sdk.NewPresignClient(sdk.New(sdk.Options{
		Region: options.Region, BaseEndpoint: &options.Endpoint, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "a+token"),
	}), sdk.WithPresignExpires(time.Hour))
	key := aws.String("final/a b/Zo\u00eb+?&%.txt")
	link := object.Link{Expires: time.Hour, ContentType: "text/plain; a=b", Disposition: `attachment; filename="a b"`, Size: 5}
	check := func(link object.Link, expected *v4.PresignedHTTPRequest, err error) {
		if err != nil {
			t.Fatal(err)
		}
		ours, err := bucket.Presign(t.Context(), strings.TrimPrefix(*key, "final/"), link)
		if err != nil {
			t.Fatal(err)
		}
		if is, should := unsigned(t, ours.URL), unsigned(t, expected.URL); is != should {
			t.Errorf("%s: our URL is\n%s, theirs\n%s", link.Method, is, should)
		}
	}
	for method, presign := range map[string]func() (*v4.PresignedHTTPRequest, error){
		http.MethodGet: func() (*v4.PresignedHTTPRequest, error) {
			return theirs.PresignGetObject(t.Context(), &sdk.GetObjectInput{
				Bucket: &options.Bucket, Key: key, ResponseContentType: &link.ContentType, ResponseContentDisposition: &link.Disposition,
			})
		},
		http.MethodHead: func() (*v4.PresignedHTTPRequest, error) {
			return theirs.PresignHeadObject(t.Context(), &sdk.HeadObjectInput{
				Bucket: &options.Bucket, Key: key, ResponseContentType: &link.ContentType, ResponseContentDisposition: &link.Disposition,
			})
		},
		http.MethodPut: func() (*v4.PresignedHTTPRequest, error) {
			return theirs.PresignPutObject(t.Context(), &sdk.PutObjectInput{
				Bucket: &options.Bucket, Key: key, ContentType: &link.ContentType, ContentLength: &link.Size,
			})
		},
	} {
		link.Method = method
		expected, err := presign()
		check(link, expected, err)
	}
	link.Method, link.Upload, link.Part = http.MethodPut, "an upload+/", 7
	expected, err := theirs.PresignUploadPart(t.Context(), &sdk.UploadPartInput{
		Bucket: &options.Bucket, Key: key, UploadId: &link.Upload, PartNumber: &link.Part, ContentLength: &link.Size,
	})
	check(link, expected, err)
}

// The SDK has no URLs for the other requests about an upload.
func TestURLsOfUploads(t *testing.T) {
	bucket, err := Open(Config{Prefix: "final/", Options: awsconfig.Options{
		Bucket: "bucket", AccessKey: "key", SecretKey: "secret", Region: "eu-central-1", Endpoint: "http://s3.example.com",
		Verify: true, ConnectTimeout: 1, ReadTimeout: 1, MaxAttempts: 1, MaxConnections: 1,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Unref()
	for _, test := range []struct {
		link             object.Link
		asks, signedOnly string
	}{
		{object.Link{Method: "POST", Size: -1}, "uploads", "host"},
		{object.Link{Method: "POST", Size: -1, ContentType: "a/b"}, "uploads", "content-type;host"},
		{object.Link{Method: "GET", Size: -1, Upload: "u"}, "uploadId", "host"},
		{object.Link{Method: "PUT", Size: 9, Upload: "u", Part: 2}, "partNumber", "content-length;host"},
		{object.Link{Method: "POST", Size: -1, Upload: "u", ContentType: "a/b"}, "uploadId", "host"},
		{object.Link{Method: "POST", Size: -1, Upload: "u", CreateOnly: true}, "uploadId", "host;if-none-match"},
		{object.Link{Method: "DELETE", Size: -1, Upload: "u", CreateOnly: true}, "uploadId", "host"},
		{object.Link{Method: "PUT", Size: 0, CreateOnly: true}, "X-Amz-Date", "content-md5;host;if-none-match"},
		{object.Link{Method: "PUT", Size: -1, NoCopy: true}, "X-Amz-Date", "host;x-amz-copy-source-if-match"},
		{object.Link{Method: "PUT", Size: -1, Upload: "u", Part: 1, NoCopy: true}, "partNumber", "host;x-amz-copy-source-if-match"},
		{object.Link{Method: "POST", Size: -1, NoCopy: true}, "uploads", "host"},
	} {
		test.link.Expires = time.Minute
		linked, err := bucket.Presign(t.Context(), "a/b", test.link)
		if err != nil {
			t.Fatal(err)
		}
		found, err := url.Parse(linked.URL)
		if err != nil {
			t.Fatal(err)
		}
		if query := found.Query(); found.Path != "/bucket/final/a/b" || !query.Has(test.asks) ||
			query.Get("X-Amz-SignedHeaders") != test.signedOnly {
			t.Errorf("%+v: %s", test.link, linked.URL)
		}
		signed := []string{"host"}
		for name := range linked.Headers {
			signed = append(signed, strings.ToLower(name))
		}
		slices.Sort(signed)
		if expected := strings.TrimPrefix(test.signedOnly, "content-length;"); strings.Join(signed, ";") != expected {
			t.Errorf("%+v: headers %v", test.link, linked.Headers)
		}
	}
	for host, is := range map[string]bool{
		"b.s3.eu-central-1.amazonaws.com": true, "s3.cn-north-1.amazonaws.com.cn": true, "s3.example.com": false, "xamazonaws.com": false,
	} {
		if amazon(host) != is {
			t.Errorf("%s", host)
		}
	}
	for _, link := range []object.Link{{Method: "DELETE"}, {Method: "HEAD", Upload: "u"}, {Method: "PATCH", Upload: "u"}} {
		link.Expires = time.Minute
		if linked, err := bucket.Presign(t.Context(), "a", link); err == nil {
			t.Errorf("%+v: %s", link, linked.URL)
		}
	}
}

func unsigned(t *testing.T, text string) string {
	parsed, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	query := parsed.Query()
	for _, name := range []string{"X-Amz-Date", "X-Amz-Signature", "X-Amz-Credential"} {
		query.Del(name)
	}
	parsed.RawQuery = query.Encode()
	return parsed.String()
}

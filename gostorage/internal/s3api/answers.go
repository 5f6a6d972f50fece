package s3api

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Every answer is compared here with its request, before anything depends on it: one function for each operation.

// strangeError tells why a success does not come from an S3 store: a page of a proxy, a gateway that knows less.
type strangeError struct{ why string }

func (e *strangeError) Error() string {
	return "the endpoint does not answer like S3 (" + e.why + "): is endpoint_url that of an S3 store, or is a proxy in front of it?"
}

func strange(format string, args ...any) error { return &strangeError{fmt.Sprintf(format, args...)} }

// Unlike is that error in the form that leaves this package.
func Unlike(why string) error { return network(strange("%s", why)) }

const (
	// longestError and longestPage in bytes bound what an answer may say: a page of a listing has 1,000 keys of 1,024 bytes.
	longestError = 1 << 20
	longestPage  = 8 << 20
)

// gather reads the whole body of an answer that is not an object, within bounds of size and time. It frees the connection.
func gather(response *http.Response) ([]byte, error) {
	most := longestPage
	if response.StatusCode/100 != 2 {
		most = longestError
	}
	if came, ok := response.Body.(*httpconn.Body); ok {
		came.Hurry()
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, int64(most)+1))
	_ = response.Body.Close()
	switch {
	case err != nil && response.StatusCode/100 == 2:
		return nil, err
	case len(text) > most:
		return nil, strange("an answer of more than %d bytes", most)
	}
	if response.StatusCode/100 != 2 {
		text = hide(text, response)
	}
	response.Body = io.NopCloser(bytes.NewReader(text))
	return text, nil
}

// hide removes from an error what may be an echo of the request's own credentials.
func hide(text []byte, response *http.Response) []byte {
	asked := response.Request.Header
	secrets := asked["X-Amz-Security-Token"]
	for field := range strings.FieldsFuncSeq(asked.Get("Authorization"), func(r rune) bool { return r == ' ' || r == ',' }) {
		if _, value, ok := strings.Cut(field, "="); ok && !strings.HasPrefix(field, "SignedHeaders") {
			value, _, _ = strings.Cut(value, "/")
			secrets = append(secrets[:len(secrets):len(secrets)], value)
		}
	}
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		text = bytes.ReplaceAll(text, []byte(secret), []byte("****"))
		for name, values := range response.Header {
			for i := range values {
				response.Header[name][i] = strings.ReplaceAll(values[i], secret, "****")
			}
		}
	}
	return text
}

// readDocument reads the answer of an operation whose success is an XML document. A document with another root is no
// success. A document that is an error is one, whatever its status.
func readDocument(response *http.Response, root string) error {
	if response.StatusCode != http.StatusOK {
		return strange("status %d", response.StatusCode)
	}
	text, err := gather(response)
	if err != nil {
		return err
	}
	switch found := rootOf(text); found {
	case root, strings.TrimSuffix(root, "Result") + "Response": // moto's server says ListPartsResponse
		return nil
	case "Error":
		response.StatusCode = http.StatusInternalServerError
		response.Body = io.NopCloser(bytes.NewReader(hide(text, response)))
		return nil
	case "":
		return strange("no %s", root)
	default:
		return strange("a document of another kind in place of %s", root)
	}
}

// readRefusal reads an answer that is no success. A page with status 404 does not say that there is no such object.
func readRefusal(response *http.Response) error {
	text, err := gather(response)
	if err == nil && response.StatusCode == http.StatusNotFound && len(bytes.TrimSpace(text)) > 0 && rootOf(text) != "Error" {
		err = strange("a page that says 404")
	}
	return err
}

// rootOf gives the name of a document's first element, "" if it has none.
func rootOf(text []byte) string {
	decoder := xml.NewDecoder(bytes.NewReader(text))
	decoder.Strict = false
	for {
		token, err := decoder.RawToken()
		if err != nil {
			return ""
		}
		if start, ok := token.(xml.StartElement); ok {
			return start.Name.Local
		}
	}
}

// given tells whether all texts that a request must have are there: an empty one would make it another request.
func given(texts ...*string) bool {
	return !slices.ContainsFunc(texts, func(text *string) bool { return aws.ToString(text) == "" })
}

// strong gives an ETag in the form that conditions take: a proxy that may compress weakens it.
func strong(etag string) string { return strings.TrimPrefix(etag, "W/") }

// SameETag tells whether two ETags mean the same. Some stores leave the quotes out, here and there.
func SameETag(one, other string) bool { return bare(one) == bare(other) }

func bare(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }

// tag gives the ETag that every answer about an object has. An answer without it is not from S3, whatever its status.
func tag(response *http.Response) (string, error) {
	if found := strong(response.Header.Get("Etag")); bare(found) != "" {
		return found, nil
	}
	return "", strange("an object without an ETag")
}

// stored is the answer to a request with a body: an ETag and nothing else.
type stored struct{ etag string }

func readStored[In any](_ context.Context, _ *In, response *http.Response) (*stored, error) {
	if response.StatusCode != http.StatusOK {
		return nil, strange("status %d", response.StatusCode)
	}
	if response.ContentLength != 0 {
		text, err := gather(response)
		if err != nil {
			return nil, err
		}
		if len(text) > 0 {
			return nil, strange("a page in place of nothing")
		}
	}
	etag, err := tag(response)
	return &stored{etag}, err
}

func readDelete(_ context.Context, _ *sdk.DeleteObjectInput, response *http.Response) (*struct{}, error) {
	if response.StatusCode != http.StatusNoContent {
		return nil, strange("status %d", response.StatusCode)
	}
	return &struct{}{}, nil
}

func readAbort(_ context.Context, _ *sdk.AbortMultipartUploadInput, response *http.Response) (*struct{}, error) {
	switch response.StatusCode {
	case http.StatusNoContent:
		return &struct{}{}, nil
	case http.StatusOK: // of some stores
		text, err := gather(response)
		if err == nil && len(text) > 0 {
			err = strange("a page in place of nothing")
		}
		return &struct{}{}, err
	default:
		return nil, strange("status %d", response.StatusCode)
	}
}

func readHeadBucket(_ context.Context, _ *sdk.HeadBucketInput, response *http.Response) (*sdk.HeadBucketOutput, error) {
	return &sdk.HeadBucketOutput{BucketRegion: header(response, "X-Amz-Bucket-Region")}, nil
}

// described is what the headers of an answer tell of an object: the few that we use, not all that S3 knows.
func described(response *http.Response) (*Object, error) {
	etag, err := tag(response)
	if err != nil {
		return nil, err
	}
	if response.ContentLength >= 0 {
		if err := checkSize(response.ContentLength); err != nil {
			return nil, err
		}
	}
	headers := response.Header
	found := &Object{
		ETag: etag, Size: -1, Length: response.ContentLength, Metadata: metadataOf(response),
		Encoding: headers.Get("Content-Encoding"), Type: headers.Get("Content-Type"),
	}
	if modified, err := http.ParseTime(headers.Get("Last-Modified")); err == nil {
		found.Modified = dated(&modified)
	}
	if headers.Get("X-Amz-Checksum-Type") == string(types.ChecksumTypeFullObject) {
		found.CRC64NVME = headers.Get("X-Amz-Checksum-Crc64nvme")
	}
	return found, nil
}

// readHead leaves the size out if the answer does: proxies drop it.
func readHead(_ context.Context, _ *sdk.HeadObjectInput, response *http.Response) (*Object, error) {
	if response.StatusCode != http.StatusOK {
		return nil, strange("status %d", response.StatusCode)
	}
	found, err := described(response)
	if err != nil {
		return nil, err
	}
	found.Size = response.ContentLength
	found.Version = response.Header.Get("X-Amz-Version-Id")
	return found, nil
}

// checkSize refuses a size that no object can have.
func checkSize(size int64) error {
	if size < 0 || size > object.MaxSize {
		return strange("an object of %d bytes", size)
	}
	return nil
}

// readGet takes an answer for the requested range of an object only if it says so. It takes it for the whole object
// only if nothing says that it is a part.
func readGet(_ context.Context, in *sdk.GetObjectInput, response *http.Response) (*Object, error) {
	found, err := described(response)
	if err != nil {
		return nil, err
	}
	found.Body = response.Body
	contentRange := header(response, "Content-Range")
	switch response.StatusCode {
	case http.StatusOK:
		if contentRange != nil {
			return nil, strange("a part of an object as all of it")
		}
		found.Size = found.Length
	case http.StatusPartialContent:
		if in.Range == nil {
			return nil, strange("a part of an object where all of it was asked for")
		}
		got, ok := extentOf(contentRange)
		if !ok {
			return nil, strange("a part of an object that does not say which")
		}
		found.Ranged, found.Start, found.End, found.Size = true, got.start, got.end, got.size
		return found, checkRange(*in.Range, got, found.Length)
	default:
		return nil, strange("status %d", response.StatusCode)
	}
	return found, nil
}

// extent is a run of an object's bytes. size is that of the object, -1 if it is not told.
type extent struct{ start, end, size int64 }

// extentOf reads a Content-Range such as "bytes 0-9/10".
func extentOf(contentRange *string) (extent, bool) {
	span, total, sized := strings.Cut(strings.TrimPrefix(aws.ToString(contentRange), "bytes "), "/")
	first, last, ok := strings.Cut(span, "-")
	start, one := number(first)
	end, two := number(last)
	found := extent{start, end + 1, -1}
	if !ok || !sized || !one || !two || start > end || !strings.HasPrefix(*contentRange, "bytes ") {
		return extent{}, false
	}
	if total != "*" {
		if found.size, ok = number(total); !ok || found.end > found.size {
			return extent{}, false
		}
	}
	return found, true
}

// number reads digits. The number must not be larger than an object.
func number(text string) (int64, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	value, err := strconv.ParseInt(text, 10, 64)
	return value, err == nil && value <= object.MaxSize
}

// checkRange compares the range of an answer with the requested one, such as "bytes=0-9" or "bytes=5-", and with the
// length of the body, -1 if it is not told.
func checkRange(asked string, got extent, length int64) error {
	first, last, _ := strings.Cut(strings.TrimPrefix(asked, "bytes="), "-")
	start, _ := number(first)
	end := got.size
	if until, bounded := number(last); bounded && (end < 0 || until < end) {
		end = until + 1
	}
	switch {
	case got.start != start, end >= 0 && got.end != end && (got.size >= 0 || got.end > end):
		return strange("another part of an object than was asked for")
	case length >= 0 && length != got.end-got.start:
		return strange("a part of an object with other bytes than it says")
	}
	return nil
}

func checkCreate(out *sdk.CreateMultipartUploadOutput) error {
	if !given(out.UploadId) {
		return strange("an upload without an UploadId")
	}
	return nil
}

func checkComplete(out *sdk.CompleteMultipartUploadOutput) error {
	if !given(out.ETag) {
		return strange("an object without an ETag")
	}
	return nil
}

// unlessIgnored is the answer to a copy. Some stores take the copy for a put of no bytes: their answer has no result.
func unlessIgnored[In, Out any](read reading[In, Out]) reading[In, Out] {
	return func(ctx context.Context, in *In, response *http.Response) (*Out, error) {
		if response.StatusCode == http.StatusOK && response.ContentLength == 0 && response.Header.Get("Etag") != "" {
			_ = response.Body.Close()
			return new(Out), nil
		}
		return read(ctx, in, response)
	}
}

func checkCopyPart(out *sdk.UploadPartCopyOutput) error {
	if out.CopyPartResult == nil {
		return nil
	}
	if !given(out.CopyPartResult.ETag) {
		return strange("a part without an ETag")
	}
	*out.CopyPartResult.ETag = strong(*out.CopyPartResult.ETag)
	return nil
}

func checkCopy(out *sdk.CopyObjectOutput) error {
	if out.CopyObjectResult != nil && !given(out.CopyObjectResult.ETag) {
		return strange("an object without an ETag")
	}
	return nil
}

func checkList(page *sdk.ListObjectsV2Output) error {
	for i := range page.Contents {
		one := &page.Contents[i]
		if one.ETag != nil {
			*one.ETag = strong(*one.ETag)
		}
		if one.Size == nil {
			return strange("a listing without sizes")
		}
		if err := checkSize(*one.Size); err != nil {
			return err
		}
	}
	return nil
}

func checkParts(page *sdk.ListPartsOutput) error {
	for _, one := range page.Parts {
		if number := aws.ToInt32(one.PartNumber); number < 1 || number > MaxParts {
			return strange("a part with the number %d", number)
		}
		if size := aws.ToInt64(one.Size); size < 0 || size > MaxPartSize {
			return strange("a part of %d bytes", size)
		}
	}
	return nil
}

// asError makes an error of the reason why an answer is no success.
func asError(response *http.Response, err error) error {
	return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: response}, Err: err}
}

// header gives a header by its canonical name, or nil.
func header(response *http.Response, name string) *string {
	if values := response.Header[name]; len(values) > 0 {
		return &values[0]
	}
	return nil
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

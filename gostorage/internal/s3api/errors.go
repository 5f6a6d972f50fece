package s3api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// codes are the error codes of S3 and of its relatives, with their kind and with a hint where users lose hours. For
// codes without a kind, the status decides.
var codes = map[string]struct {
	kind object.Code
	hint string
}{
	"NoSuchKey":                      {kind: object.NotFound},
	"NotFound":                       {kind: object.NotFound},
	"NoSuchVersion":                  {kind: object.NotFound},
	"NoSuchBucket":                   {kind: object.Bucket, hint: "bucket_name names a bucket that this endpoint does not have: create it, or check endpoint_url and addressing_style"},
	"InvalidBucketName":              {kind: object.Bucket},
	"AccessDenied":                   {kind: object.Permission, hint: "the credentials do not allow it; without s3:ListBucket a missing object is answered so too"},
	"PreconditionFailed":             {kind: object.Exists, hint: "another object is there"},
	"ConditionalRequestConflict":     {kind: object.Conflict},
	"OperationAborted":               {kind: object.Conflict},
	"NoSuchUpload":                   {kind: object.Conflict},
	"ObjectParentIsFile":             {kind: object.Conflict},
	"XMinioParentIsObject":           {kind: object.Conflict},
	"XMinioObjectExistsAsDirectory":  {kind: object.Conflict},
	"ObjectExistsAsDirectory":        {kind: object.Conflict},
	"ExistingObjectIsDirectory":      {kind: object.Conflict},
	"BadDigest":                      {kind: object.Mismatch, hint: "other bytes arrived than were sent"},
	"InvalidDigest":                  {kind: object.Mismatch},
	"XAmzContentSHA256Mismatch":      {kind: object.Mismatch, hint: "other bytes arrived than were sent"},
	"XAmzContentChecksumMismatch":    {kind: object.Mismatch, hint: "other bytes arrived than were sent"},
	"IncompleteBody":                 {kind: object.Mismatch},
	"MalformedXML":                   {kind: object.Mismatch, hint: "other bytes arrived than were sent"},
	"QuotaExceeded":                  {kind: object.Full},
	"XMinioStorageFull":              {kind: object.Full},
	"InsufficientStorage":            {kind: object.Full},
	"XMinioAdminBucketQuotaExceeded": {kind: object.Full},
	"KeyTooLongError":                {kind: object.InvalidKey},
	"KeyTooLong":                     {kind: object.InvalidKey},
	"XMinioInvalidObjectName":        {kind: object.InvalidKey},
	"XAdminUserNotFound":             {kind: object.Permission, hint: "access_key is not known to this endpoint: is endpoint_url the right one?"},
	"ExpiredToken":                   {kind: object.Permission, hint: "the temporary credentials have expired"},
	"InvalidToken":                   {kind: object.Permission, hint: "security_token does not belong to access_key"},
	"SlowDown":                       {kind: object.Unavailable},
	"SlowDownRead":                   {kind: object.Unavailable},
	"SlowDownWrite":                  {kind: object.Unavailable},
	"RequestTimeout":                 {kind: object.Timeout},
	"InvalidAccessKeyId":             {hint: "access_key is not known to this endpoint: is endpoint_url the right one?"},
	"SignatureDoesNotMatch":          {hint: "secret_key does not belong to access_key, or a proxy changed the request"},
	"RequestTimeTooSkewed":           {hint: "the clock of this machine is wrong; set it by NTP"},
	"PermanentRedirect":              {hint: "the bucket is in another region: set region_name"},
	"TemporaryRedirect":              {hint: "the bucket is in another region, or was just created: set region_name"},
	"AuthorizationHeaderMalformed":   {hint: "the bucket is in another region: set region_name"},
	"InvalidObjectState":             {hint: "the object is in an archive storage class: restore it first"},
	"EntityTooLarge":                 {hint: "the object is larger than the server takes in one request: set a smaller part_size"},
}

// classify gives an error of the SDK, of the server or of the network the one form that leaves this package.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*object.Error](err); ok {
		return known
	}
	if missing, ok := errors.AsType[*awsconfig.CredentialsError](err); ok { // the answer of the issuer is not the store's
		return missing.Told()
	}
	if _, ok := errors.AsType[*strangeError](err); ok {
		return network(err)
	}
	response, answered := errors.AsType[*smithyhttp.ResponseError](err)
	code, said := "", ""
	if refused, ok := errors.AsType[smithy.APIError](err); ok {
		code, said = refused.ErrorCode(), refused.ErrorMessage()
	}
	status := 0
	if answered {
		status = response.HTTPStatusCode()
	}
	if code == "UnknownError" || said == http.StatusText(status) { // the SDK's words for an answer without any
		code, said = "", ""
	}
	if status == 0 || status/100 == 2 && code == "" {
		return network(err)
	}
	if said == "UnknownError" { // the SDK's word for no message
		said = ""
	}
	failed := answer(code, status)
	failed.Status, failed.Said = status, code
	if id, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		failed.RequestID = Printable(id.ServiceRequestID())
	}
	failed.Message = describe(code, said, status, response.Response)
	if _, ok := errors.AsType[*staleError](err); ok && ended[code] {
		failed.Code, failed.Retryable = object.Unavailable, true
		failed.Message = "the store says that the temporary credentials have expired, of new ones too: try again later;" +
			" are all clocks right?"
	}
	return failed
}

// answer is the error for a code of S3, or for a status if the code is not known.
func answer(code string, status int) *object.Error {
	failed := &object.Error{Code: kind(code, status)}
	switch failed.Code {
	case object.Unavailable, object.Timeout, object.Mismatch:
		failed.Retryable = true
	case object.Conflict: // of writers, not of an object with a folder
		failed.Retryable = !strings.Contains(code, "Parent") && !strings.Contains(code, "Directory")
	}
	return failed
}

func kind(code string, status int) object.Code {
	if known := codes[code].kind; known != "" {
		return known
	}
	switch {
	case status < http.StatusMultipleChoices: // 200 with an error in it, or a body that is no answer
		return object.Unavailable
	case status == http.StatusNotFound:
		return object.NotFound
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return object.Permission
	case status == http.StatusConflict:
		return object.Conflict
	case status == http.StatusPreconditionFailed:
		return object.Exists
	case status == http.StatusRequestTimeout:
		return object.Timeout
	case status == http.StatusInsufficientStorage:
		return object.Full
	case status == http.StatusNotImplemented:
		return object.Refused
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return object.Unavailable
	default:
		return object.Refused
	}
}

// expectedRegion finds the region in "the region 'a' is wrong; expecting 'b'", with either quotes.
var expectedRegion = regexp.MustCompile(`expecting ['"]([a-z0-9-]+)['"]`)

func describe(code, said string, status int, response *smithyhttp.Response) string {
	text := fmt.Sprintf("the server answers %d", status)
	if code != "" {
		text += " " + Printable(code)
	}
	hint := codes[code].hint
	region, location := "", ""
	if response != nil {
		region, location = response.Header.Get("X-Amz-Bucket-Region"), response.Header.Get("Location")
	}
	if match := expectedRegion.FindStringSubmatch(said); match != nil {
		region = match[1]
	}
	switch {
	case hint != "":
		text += ": " + hint
	case status/100 == 3 && region != "":
		text += ": the bucket is in another region: set region_name"
	case status/100 == 3:
		text += ": " + redirected(response, location)
	case status == http.StatusRequestEntityTooLarge:
		text += ": a proxy in front of the store takes no requests as large: set a smaller part_size, or raise its limit"
	case status == http.StatusForbidden && code == "" && response != nil && strings.HasPrefix(response.Header.Get("Content-Type"), "text/"):
		text += " without an error of S3: a proxy in front of the store may refuse it, or endpoint_url is none of an S3 store"
	case status == http.StatusForbidden:
		text += ": " + codes["AccessDenied"].hint
	case strings.Contains(said, "HTTP request to an HTTPS server") || strings.Contains(said, "plain HTTP request"):
		text += ": the endpoint speaks https: begin endpoint_url with https://"
	case said != "" && code != "":
		text += ": " + Printable(strings.Join(strings.Fields(said), " "))
	case status == http.StatusBadRequest:
		text += ": is endpoint_url an S3 endpoint, with the right scheme (http or https) and port?"
	}
	if region != "" && (status/100 == 3 || status == http.StatusBadRequest) {
		text += fmt.Sprintf(" (%q)", region)
	}
	return text
}

// redirected says where an answer that does not come from a store sends us.
func redirected(response *smithyhttp.Response, location string) string {
	to, err := url.Parse(location)
	if err != nil || location == "" || to.Host == "" {
		return "it sends elsewhere: is endpoint_url that of an S3 store?"
	}
	if asked := response.Request; asked != nil && to.Hostname() == asked.URL.Hostname() && to.Scheme == "https" && asked.URL.Scheme == "http" {
		return "it sends to https: begin endpoint_url with https://"
	}
	return fmt.Sprintf("it sends to %q: set endpoint_url to where the store is", Printable(to.Host))
}

// longestTold, in characters, bounds how much of a server's text goes into a message.
const longestTold = 200

// Printable makes a server's text safe for a message or a log: it is cut, and invisible characters are escaped.
func Printable(text string) string {
	var safe strings.Builder
	for i, r := range []rune(text[:min(len(text), 4*longestTold)]) {
		switch {
		case i == longestTold:
			return safe.String() + "..."
		case strconv.IsPrint(r) && r != utf8.RuneError:
			safe.WriteRune(r)
		default:
			fmt.Fprintf(&safe, "\\u%04x", r)
		}
	}
	return safe.String()
}

// network describes an error without an answer.
func network(err error) error {
	fail := func(code object.Code, format string, args ...any) error {
		failed := object.Errorf(code, format, args...)
		failed.Retryable = code == object.Timeout || code == object.Unavailable
		return failed
	}
	if strange, ok := errors.AsType[*strangeError](err); ok {
		return fail(object.Unavailable, "%v", strange)
	}
	if certificate(err) {
		return fail(object.Refused, "%s", untrusted(err))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "HTTP response to HTTPS") {
		return fail(object.Refused, "the endpoint does not speak TLS: begin endpoint_url with http://, or use its https port")
	}
	if refused, ok := errors.AsType[httpconn.ProxyError](err); ok {
		code := object.Unavailable
		if hopeless(err) {
			code = object.Refused
		}
		return fail(code, "%v: set proxy to one that lets this machine through to the endpoint", refused)
	}
	if missing, ok := errors.AsType[*net.DNSError](err); ok {
		return fail(object.Unavailable, "the endpoint's name %q cannot be resolved", missing.Name)
	}
	if failed, ok := errors.AsType[net.Error](err); ok && failed.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, context.DeadlineExceeded) {
		return fail(object.Timeout, "the server did not answer in time")
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return fail(object.Unavailable, "the connection to the endpoint failed: %v", number)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fail(object.Unavailable, "the server closed the connection before it had answered")
	}
	if brokenSuccess(err) {
		return fail(object.Unavailable, "the server's answer was cut short, or is not that of an S3 store")
	}
	if _, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return fail(object.Unavailable, "the request could not be sent")
	}
	return fail(object.Internal, "unexpected error of type %T", err)
}

// BodyError gives an error in reading a body its form. An error that has that form is left as it is.
func BodyError(err error) error {
	if _, known := errors.AsType[*object.Error](err); known {
		return err
	}
	if !httpconn.Cut(err) {
		err = strange("a body that is no HTTP")
	}
	return network(err)
}

// untrusted says what is wrong with the certificate of a server.
func untrusted(err error) string {
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		if len(name.Certificate.DNSNames)+len(name.Certificate.IPAddresses) == 0 {
			return "the endpoint's certificate names no host (it has no subjectAltName): have one made that names " + Printable(name.Host)
		}
		return fmt.Sprintf("the endpoint's certificate is for other hosts than %s: set endpoint_url to a name that it has, such as %s",
			Printable(name.Host), Printable(append(slices.Clone(name.Certificate.DNSNames), addresses(name.Certificate)...)[0]))
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if time.Now().Before(invalid.Cert.NotBefore) {
			return "the endpoint's certificate is not valid yet: is the clock of this machine right?"
		}
		return "the endpoint's certificate has expired: have it renewed, or set the clock of this machine"
	} else if ok {
		return "the endpoint's certificate, or one that it was signed by, may not be used so: have another made"
	}
	return "the endpoint's certificate is not trusted: set ca_bundle to the CA that signed it (or AWS_CA_BUNDLE)"
}

func addresses(certificate *x509.Certificate) (texts []string) {
	for _, address := range certificate.IPAddresses {
		texts = append(texts, address.String())
	}
	return texts
}

func certificate(err error) bool {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, refused := errors.AsType[*tls.CertificateVerificationError](err)
	return unknown || name || invalid || refused
}

// Refused tells whether the server has seen a request and rejects it.
func Refused(err error) bool {
	failed, ok := errors.AsType[*object.Error](err)
	return ok && failed.Status >= 300 && failed.Status < 500
}

// RefusedWith tells whether the server has refused a request with one of these statuses, and with no other kind of error.
func RefusedWith(err error, statuses ...int) bool {
	failed, ok := errors.AsType[*object.Error](err)
	return ok && failed.Code == object.Refused && slices.Contains(statuses, failed.Status)
}

package s3probe

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// forgetful is a store that lists no uploads for us, and of one that has ended it lists no parts.
func forgetful(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodPost:
		_, _ = fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
	case r.Method == http.MethodPut:
		w.Header().Set("ETag", `"1"`)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case query.Has("uploadId"):
		_, _ = fmt.Fprint(w, "<ListPartsResult></ListPartsResult>")
	default:
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, "<Error><Code>AccessDenied</Code></Error>")
	}
}

func TestAnAbortedUploadIsJudgedByItsPartsAlone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(forgetful))
	defer server.Close()
	bucket, err := s3api.Open(s3api.Config{Prefix: "a/", Options: awsconfig.Options{
		Bucket: "tests", AccessKey: "key", SecretKey: "secretsecret", Endpoint: server.URL, Verify: true,
		ConnectTimeout: 5, ReadTimeout: 10, MaxAttempts: 1, MaxConnections: 1,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Unref()
	p := &probe{ctx: t.Context(), bucket: bucket, uploads: map[string]string{}, keys: map[string]bool{}}
	if found := p.abort(); found.OK == nil || !*found.OK {
		t.Errorf("%+v", found)
	}
}

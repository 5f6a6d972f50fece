package main

import (
	"net/http"
	"net/url"
	"strings"
)

// subresources make another operation of a request that looks like one on an object.
var subresources = []string{"acl", "attributes", "legal-hold", "restore", "retention", "select", "tagging", "torrent"}

// classify names the S3 operation of a request, and the key it is about. It knows path-style requests.
func classify(r *http.Request) (operation, key string) {
	_, key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	query := r.URL.Query()
	for _, name := range subresources {
		if query.Has(name) {
			return "other", key
		}
	}
	if key == "" {
		return ofBucket(r.Method, query), key
	}
	return ofObject(r.Method, query, r.Header.Get("X-Amz-Copy-Source") != ""), key
}

func ofBucket(method string, query url.Values) string {
	switch {
	case method == http.MethodHead:
		return "HeadBucket"
	case method == http.MethodGet && query.Get("list-type") == "2":
		return "ListObjectsV2"
	case method == http.MethodGet && query.Has("uploads"):
		return "ListMultipartUploads"
	case method == http.MethodPost && query.Has("delete"):
		return "DeleteObjects"
	}
	return "other"
}

func ofObject(method string, query url.Values, copies bool) string {
	upload := query.Has("uploadId")
	switch {
	case method == http.MethodPut && upload && copies:
		return "UploadPartCopy"
	case method == http.MethodPut && upload:
		return "UploadPart"
	case method == http.MethodPut && copies:
		return "CopyObject"
	case method == http.MethodPut:
		return "PutObject"
	case method == http.MethodGet && upload:
		return "ListParts"
	case method == http.MethodGet:
		return "GetObject"
	case method == http.MethodHead:
		return "HeadObject"
	case method == http.MethodDelete && upload:
		return "AbortMultipartUpload"
	case method == http.MethodDelete:
		return "DeleteObject"
	case method == http.MethodPost && query.Has("uploads"):
		return "CreateMultipartUpload"
	case method == http.MethodPost && upload:
		return "CompleteMultipartUpload"
	}
	return "other"
}

package httpconn

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
)

// A proxy may say in between that it is at work, but not for ever.
func TestProxyThatTakesItsTime(t *testing.T) {
	for interim, want := range map[int]string{0: "", 3: "", mostInterim + 1: "the proxy answers 102"} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = http.ReadRequest(bufio.NewReader(theirs))
			for range interim {
				_, _ = io.WriteString(theirs, "HTTP/1.1 102 Processing\r\n\r\n")
			}
			_, _ = io.WriteString(theirs, "HTTP/1.1 200 Connection established\r\n\r\n")
		}()
		err := tunnel(ours, &url.URL{}, "store.example:443")
		if got := fmt.Sprint(err); err == nil != (want == "") || want != "" && got != want {
			t.Errorf("after %d interim answers: %v", interim, err)
		}
		_, _ = ours.Close(), theirs.Close()
	}
}

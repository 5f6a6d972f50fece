// Command faultproxy stands between an S3 client and an S3 server, passes everything on as it is, and lets one thing
// go wrong where a rule says so. It keeps a log of what passed.
//
// With -certificate, a file with a certificate and its key, clients talk https to it; the control is always http.
//
// It prints one line of JSON with the address of the proxy and that of its control, both on the loopback interface.
// The control takes and gives JSON:
//
//	POST   /rules          adds a rule (see Rule), answers {"id": N}
//	DELETE /rules/N        takes it back; what it stalls goes on
//	DELETE /rules          takes all back
//	GET    /log            the requests so far, oldest first (see Entry); waits a second for those still running
//	DELETE /log            forgets them
//	GET    /connections    {"open": N}, the client connections
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	upstream := flag.String("upstream", "", "URL of the S3 server")
	ca := flag.String("ca", "", "file with the certificates to trust, for an https upstream")
	certificate := flag.String("certificate", "", "file with a certificate and its key, to be reached over https")
	flag.Parse()
	if err := run(*upstream, *ca, *certificate); err != nil {
		log.Fatal(err)
	}
}

func run(upstream, ca, certificate string) error {
	target, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	var trusted *tls.Config
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		trusted = &tls.Config{RootCAs: x509.NewCertPool()}
		if !trusted.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in " + ca)
		}
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := NewProxy(target, trusted)
	ended := make(chan error)
	go func() {
		if certificate == "" {
			ended <- proxy.Server().Serve(front)
		} else {
			ended <- proxy.Server().ServeTLS(front, certificate, certificate)
		}
	}()
	go func() { ended <- http.Serve(control, proxy.Control()) }()
	addresses := map[string]string{"proxy": front.Addr().String(), "control": control.Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(addresses); err != nil {
		return err
	}
	return <-ended
}

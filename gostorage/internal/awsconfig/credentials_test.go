package awsconfig

import (
	"fmt"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

func TestALackOfDescriptorsIsNoLackOfCredentials(t *testing.T) {
	for _, number := range []unix.Errno{unix.EMFILE, unix.ENFILE} {
		err := fmt.Errorf("an issuer: %w", &os.PathError{Op: "open", Path: "token", Err: number})
		told := (&CredentialsError{err, keep(aws.AnonymousCredentials{})}).Told()
		if object.CodeOf(told) != object.Unavailable || !object.Retryable(told) {
			t.Errorf("%v: %v", number, told)
		}
	}
}

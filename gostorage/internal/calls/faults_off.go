//go:build !faults

package calls

import "github.com/django-gostorage/django-gostorage/gostorage/internal/object"

func faulty(made object.Store) object.Store { return made }

package fdstore

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// FuzzInherit calls Inherit with the admin listener, and with a file that has a random name and
// random content. Inherit must return an error, or report the file as unusable, or return one
// registration. Inherit may return a registration only if the file is sealed, contains a manifest,
// and has the sequence number of the registration in its name.
func FuzzInherit(f *testing.F) {
	manifest := "schema_version: 1\nproject: api\nsecrets: {}\n"
	valid, err := wire.Encode(schema.RegisterRequest{Name: "api", ProjectPath: "/srv/api", Manifest: &manifest})
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"registration@1", "registration@18446744073709551615", "registration@01", "registration@", "registration-api@1", "project-api", "probe", "admin", "", "LISTEN_FD_9"} {
		f.Add(name, valid, true)
	}
	f.Add("registration@1", valid, false)
	f.Add("registration@2", []byte(`{"op":"register","name":"api","project_path":"/srv/api"}`), true)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(f.TempDir(), "s"), Net: "unix"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { listener.Close() })
	f.Fuzz(func(t *testing.T, name string, content []byte, sealed bool) {
		admin, err := listener.File()
		if err != nil {
			t.Fatal(err)
		}
		in, err := Inherit([]*os.File{renamed(t, admin, adminName), newMemfd(t, name, content, sealed)})
		if err != nil {
			return
		}
		defer in.Close()
		if len(in.Registrations)+len(in.Unusable) != 1 {
			t.Errorf("the file %q is neither a registration nor unusable", name)
		}
		for project, registration := range in.Registrations {
			if !sealed || registration.Request.Name != project || registration.Request.Manifest == nil || registrationName(registration.Sequence) != name {
				t.Errorf("the file %q is the registration %+v of %s", name, registration, project)
			}
		}
	})
}

// renamed returns a copy of a file with another name. It closes the given file. The service
// manager gives each file a name in the same way (sd_listen_fds_with_names(3)).
func renamed(t *testing.T, file *os.File, name string) *os.File {
	t.Helper()
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

func newMemfd(t *testing.T, name string, content []byte, sealed bool) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	if sealed {
		if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, allSeals); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

package fdstore

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// maxRegistration is the maximum size of a stored registration, in bytes. It is large
// enough for a manifest in which every byte is escaped, and for the other fields.
const maxRegistration = 8 * schema.MaxManifest

// allSeals contains the seals with which no process can change the content or the size of a memfd,
// or add other seals.
const allSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// seal writes a registration to a memfd and seals the memfd. A memfd is in memory, so the
// registration is not written to disk. Close the returned file after use.
func seal(request schema.RegisterRequest) (*os.File, error) {
	text, err := wire.Encode(request)
	if err != nil {
		return nil, err
	}
	name := "keyhatch-registration"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // Linux before 6.3 does not know MFD_NOEXEC_SEAL
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("creating a memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err = file.Write(text); err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, allSeals)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("writing to a memfd: %w", err)
	}
	return file, nil
}

// unseal reads a registration from a memfd. It returns an error if the memfd does not have all
// seals, because another process could still change the content. It also returns an error if the
// memfd contains no registration with a manifest.
func unseal(file *os.File) (schema.RegisterRequest, error) {
	if have, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || have&allSeals != allSeals {
		return schema.RegisterRequest{}, errors.New("not a sealed memfd")
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxRegistration))
	if err != nil {
		return schema.RegisterRequest{}, err
	}
	var request schema.RegisterRequest
	if err := wire.Decode(text, &request, schema.MaxDepth); err != nil {
		return schema.RegisterRequest{}, err
	}
	if request.Manifest == nil {
		return schema.RegisterRequest{}, errors.New("the registration contains no manifest")
	}
	return request, nil
}

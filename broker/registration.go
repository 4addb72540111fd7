package broker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A registration is all that makes a project, in the form in which it outlives
// the daemon: the request that was approved, with the manifest's text in it.
type registration schema.RegisterRequest

// check holds a registration against the rules, but for the manifest's.
func (r registration) check() error {
	if err := checkProject(r.Name); err != nil {
		return err
	}
	path := r.ProjectPath
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path:
		return refusal(schema.CodeProtocolError, "project_path must be absolute and clean: no ., no .., no double or trailing slash")
	case filepath.Base(path) != string(r.Name):
		return refusal(schema.CodeProtocolError, "name must be the base name of project_path")
	case slices.Contains(r.AllowUIDs, unknownUID):
		return refusal(schema.CodeProtocolError, "allow_uids must not hold %d: every unknown caller has that uid", unknownUID)
	}
	for _, id := range r.DevcontainerIDs {
		if !schema.ValidDevcontainerID(id) {
			return refusal(schema.CodeProtocolError, "each of devcontainer_ids must match %s", schema.DevcontainerIDPattern)
		}
	}
	return nil
}

// maxRegistration bounds what is read back: a manifest with every byte escaped,
// and room for the rest.
const maxRegistration = 8 * schema.MaxManifest

// seals make a memfd's content final, for whoever else may hold it.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// seal writes a registration into a sealed memfd, which is memory and no file.
func (r registration) seal() (*os.File, error) {
	text, err := wire.Encode(r)
	if err != nil {
		return nil, err
	}
	name := "keyhatch-registration"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3, which brought MFD_NOEXEC_SEAL
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("making a memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err = file.Write(text); err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("filling a memfd: %w", err)
	}
	return file, nil
}

// unseal reads a registration back.
func unseal(file *os.File) (registration, error) {
	if have, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || have&seals != seals {
		return registration{}, errors.New("it is no sealed memfd")
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxRegistration))
	if err != nil {
		return registration{}, err
	}
	var r registration
	if err := wire.Decode(text, &r, schema.MaxDepth); err != nil {
		return registration{}, err
	}
	if r.Manifest == nil {
		return registration{}, errors.New("it holds no manifest")
	}
	return r, nil
}

// samePlace reports whether two registrations differ in their manifests only.
func (r registration) samePlace(other registration) bool {
	return r.ProjectPath == other.ProjectPath && slices.Equal(r.AllowUIDs, other.AllowUIDs) &&
		slices.Equal(r.DevcontainerIDs, other.DevcontainerIDs)
}

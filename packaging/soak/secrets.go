package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/keyhatch/keyhatch/schema"
)

// Every value contains tripwire, and every name contains nameTripwire. No other text contains
// these two words.
const (
	tripwire     = "TRIPWIRE-of-the-soak-test"
	nameTripwire = "SOAKNAME"
)

// secrets contains the names of all secrets, and remembers which values exist.
type secrets struct {
	dir string // the directory of the store

	mu sync.Mutex
	// The values of each secret have the numbers 1, 2, 3, and so on. written is the number of
	// the newest value that may be in the store. seen is the largest number that a client got.
	written, seen map[schema.SecretName]int
	editing       map[schema.SecretName]*sync.Mutex
}

func newSecrets(dir string) *secrets {
	return &secrets{dir: dir, written: map[schema.SecretName]int{}, seen: map[schema.SecretName]int{}, editing: map[schema.SecretName]*sync.Mutex{}}
}

// next returns a new value. The caller must hold the lock of this secret while it writes
// the value.
func (s *secrets) next(name schema.SecretName) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[name]++
	text := fmt.Sprintf("%s:%s:%d:%s", tripwire, name, s.written[name], strings.Repeat("x", rand.IntN(2000)))
	return text + ":" + checksum(text)
}

func checksum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// lock locks one secret, so that only one goroutine writes it.
func (s *secrets) lock(name schema.SecretName) (unlock func()) {
	s.mu.Lock()
	m := s.editing[name]
	if m == nil {
		m = &sync.Mutex{}
		s.editing[name] = m
	}
	s.mu.Unlock()
	m.Lock()
	return m.Unlock
}

func (s *secrets) path(name schema.SecretName) string { return filepath.Join(s.dir, string(name)) }

// replace writes a new value to a new file, and renames the file.
func (s *secrets) replace(name schema.SecretName) error {
	defer s.lock(name)()
	temporary := filepath.Join(s.dir, "."+string(name))
	if err := os.WriteFile(temporary, []byte(s.next(name)), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, s.path(name))
}

// overwrite truncates the file, and writes a new value in two parts. pause runs between the
// parts.
func (s *secrets) overwrite(name schema.SecretName, pause func()) error {
	defer s.lock(name)()
	f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	value := s.next(name)
	half := rand.IntN(len(value))
	if _, err := f.WriteString(value[:half]); err != nil {
		return err
	}
	pause()
	_, err = f.WriteString(value[half:])
	return err
}

// newest returns the numbers of the newest values that clients have got up to now.
func (s *secrets) newest() map[schema.SecretName]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := map[schema.SecretName]int{}
	for name, number := range s.seen {
		newest[name] = number
	}
	return newest
}

// check checks a value that a client got. Before the client sent its request, the caller
// called newest; atLeast is the result. The error does not contain the value.
func (s *secrets) check(name schema.SecretName, value string, atLeast map[schema.SecretName]int) error {
	end := strings.LastIndexByte(value, ':')
	if end < 0 || checksum(value[:end]) != value[end+1:] {
		return fmt.Errorf("the value of %s is not complete: %d bytes", name, len(value))
	}
	fields := strings.Split(value, ":")
	if len(fields) != 5 || fields[1] != string(name) {
		return fmt.Errorf("%s has the value of another secret", name)
	}
	number, err := strconv.Atoi(fields[2])
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if number < atLeast[name] || number > s.written[name] {
		return fmt.Errorf("a client got value number %d of %s, want a number from %d to %d", number, name, atLeast[name], s.written[name])
	}
	s.seen[name] = max(s.seen[name], number)
	return nil
}

// stored returns the value in the store.
func (s *secrets) stored(name schema.SecretName) (string, error) {
	value, err := os.ReadFile(s.path(name))
	return string(value), err
}

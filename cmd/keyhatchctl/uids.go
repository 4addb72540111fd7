package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// chooseUIDs returns the uids that can use the socket: the uids that the project has, the
// owner of the directory, and the uids of --allow-uid. keyhatchctl finds the owner itself,
// because a broker in a sandbox may be unable to read the directory.
func chooseUIDs(path string, options registerOptions, current []uint32) ([]uint32, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	uids := union(current, []uint32{info.Sys().(*syscall.Stat_t).Uid})
	for _, uid := range options.uids {
		if uint(uint32(uid)) != uid {
			return nil, cli.UsageErrorf("--allow-uid: %d is not a valid uid: the maximum is 4294967295", uid)
		}
		uids = union(uids, []uint32{uint32(uid)})
	}
	return uids, nil
}

// union returns a, and then the elements of b that are not in a.
func union[T comparable](a, b []T) []T {
	all := slices.Clone(a)
	for _, element := range b {
		if !slices.Contains(all, element) {
			all = append(all, element)
		}
	}
	return all
}

func formatUIDs(uids []uint32) string { return strings.Join(uidTexts(uids), ", ") }

func uidTexts(uids []uint32) (texts []string) {
	for _, uid := range uids {
		texts = append(texts, fmt.Sprint(uid))
	}
	return texts
}

// Package devcontainer is keyhatch inside a project container: it fetches what
// the project may have and hands it to the programs there.
//
// It runs next to hostile code and trusts only the socket it is given. The
// project's tree is that code's to write, so nothing is read there: the broker
// says what was approved, how secrets are injected included.
package devcontainer

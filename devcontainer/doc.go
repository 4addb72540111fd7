// Package devcontainer is the part of keyhatch that runs inside a project container. It
// fetches the project's secrets and passes them to programs as environment variables or
// files.
//
// It runs next to hostile code and trusts only the socket. Hostile code can write to the
// project's directory, so this package reads no file there. The approved manifest, which
// also defines the variables and files, comes from the broker.
package devcontainer

// Package devcontainer is the part of keyhatch that runs inside a project container. It
// fetches the project's secrets and passes them to programs as environment variables or
// files.
//
// The package runs next to hostile code and trusts only the project's socket. Hostile code
// can change the project's files, so the package does not read them. It gets the approved
// manifest, which also defines the variables and files, from the broker.
package devcontainer

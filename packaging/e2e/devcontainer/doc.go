// Package devcontainer tests keyhatch in real dev containers. It starts the dev containers
// with a container engine and the Dev Container CLI. It checks that each project gets only
// its own secrets, and that no value of a secret remains on a disk, in a log, or in an
// image. To run the tests, use `make e2e-devcontainer`.
package devcontainer

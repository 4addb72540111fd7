// Package devcontainer starts real dev containers with a container engine and the Dev
// Container CLI. It checks that each project gets its own secrets and no others, and that
// no value remains on a disk, in a log, or in an image. Run it with make
// e2e-devcontainer.
package devcontainer

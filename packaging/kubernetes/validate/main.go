// Command validate checks a Kubernetes manifest with the Go types of Kubernetes. It
// reports an unknown field, a duplicate field, or a wrong type as an error. It does not
// need a cluster. validate is a separate Go module, so that keyhatch does not depend on
// Kubernetes.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	count, err := validate(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d objects are valid\n", count)
}

func validate(path string) (int, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(appsv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		return 0, err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	documents := yaml.NewDocumentDecoder(f)
	defer documents.Close()
	text := make([]byte, 1<<20)
	for count := 0; ; count++ {
		n, err := documents.Read(text)
		if err == io.EOF && count > 0 {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		if _, _, err := decoder.Decode(text[:n], nil, nil); err != nil {
			return count, fmt.Errorf("object %d is invalid: %w", count+1, err)
		}
	}
}

package store

// Parse exports parse for the tests in package store_test.
func (f Format) Parse(text []byte) (Set, error) {
	set, _, err := f.parse(text)
	return set, err
}

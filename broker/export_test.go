package broker

// WaitUntilStored waits until the broker has tried to store the projects that it served at its start.
func (s *Server) WaitUntilStored() {
	s.registry.changing.Lock()
	defer s.registry.changing.Unlock()
}

package broker

// HoldKeyring makes every get hang until the function that it returns is called.
func (s *Server) HoldKeyring() (release func()) {
	s.keyring.mu.Lock()
	return s.keyring.mu.Unlock
}

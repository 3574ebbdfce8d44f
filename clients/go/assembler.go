package kingpole

// Pieces of a stream become frames. Knows no socket: it hands out the memory that the next bytes belong in, so that a socket can
// receive straight into place.

// firstPayloadBytes is what is asked of memory at once for payloads that nobody has sent yet. More follows as they come, so that
// a server has to send what it wants to have held.
const firstPayloadBytes = 1 << 20

// assembler collects the pieces of a stream into frames. Ask space for the memory that the next bytes go to, fill any part of it,
// say how much to filled. Nothing is allocated before the length that asks for it has been checked.
type assembler struct {
	limit    int64
	memory   []byte
	have     int
	reading  func(*assembler) (*frame, error)
	header   []byte
	hBytes   int
	payloads int
	exchange uint64
	lengths  []uint64
	total    int
}

func newAssembler(limit int64) *assembler {
	a := &assembler{limit: limit}
	a.begin()
	return a
}

func (a *assembler) begin() {
	a.memory, a.have, a.reading = make([]byte, preludeBytes), 0, (*assembler).readPrelude
	a.header, a.lengths = nil, nil
}

// idle reports whether it stands between two frames.
func (a *assembler) idle() bool {
	return a.have == 0 && a.header == nil && len(a.memory) == preludeBytes
}

// space returns the memory that the next bytes of the stream belong in; never empty.
func (a *assembler) space() []byte { return a.memory[a.have:] }

// filled accounts for more bytes in space; it returns the frame that they complete, if they do.
func (a *assembler) filled(nbytes int) (*frame, error) {
	a.have += nbytes
	for a.have == len(a.memory) {
		if done, err := a.reading(a); done != nil || err != nil {
			return done, err
		}
	}
	return nil, nil
}

func (a *assembler) readPrelude() (*frame, error) {
	headerBytes, payloads, err := readPrelude(a.memory)
	if err != nil {
		return nil, err
	}
	end := preludeBytes + headerBytes
	a.hBytes, a.payloads = headerBytes, payloads
	a.memory, a.have, a.reading = make([]byte, headerBytes+paddingAfter(end)), 0, (*assembler).readHeader
	return nil, nil
}

func (a *assembler) readHeader() (*frame, error) {
	var err error
	a.header = a.memory[:a.hBytes:a.hBytes]
	if a.exchange, a.lengths, a.total, err = payloadLengths(a.header, a.payloads, a.limit); err != nil {
		return nil, err
	}
	if a.total == 0 {
		return a.finish(nil), nil
	}
	a.memory, a.have, a.reading = make([]byte, min(a.total, firstPayloadBytes)), 0, (*assembler).readPayloads
	return nil, nil
}

func (a *assembler) readPayloads() (*frame, error) {
	if a.have == a.total {
		return a.finish(a.memory), nil
	}
	// The first part has come: the sender means it. One copy of that part, and none of the rest.
	whole := make([]byte, a.total)
	copy(whole, a.memory)
	a.memory = whole
	return nil, nil
}

func (a *assembler) finish(body []byte) *frame {
	whole := &frame{a.header, a.exchange, cutPayloads(body, a.lengths)}
	a.begin()
	return whole
}

// feed copies a piece of the stream in and gives each frame that it completes to take.
func (a *assembler) feed(data []byte, take func(*frame) error) error {
	for len(data) > 0 {
		nbytes := copy(a.space(), data)
		data = data[nbytes:]
		whole, err := a.filled(nbytes)
		if err != nil {
			return err
		}
		if whole != nil {
			if err := take(whole); err != nil {
				return err
			}
		}
	}
	return nil
}

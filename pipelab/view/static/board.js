function renderBoard() {}

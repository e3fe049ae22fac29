from ushape.distributed.grid import BlockGrid, choose_block


def test_blocks_are_numbered_in_row_major_order():
    grid = BlockGrid((5, 7), (2, 4))
    assert grid.counts == (3, 2)
    assert len(grid) == 6
    assert [grid.place(index) for index in range(6)] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    assert all(grid.index(grid.place(index)) == index for index in range(6))
    assert grid.box(5) == ((4, 5), (4, 7))


def test_choose_block_grows_the_shortest_axis_within_the_memory():
    def memory_of(block):
        return block[0] * block[1]

    assert choose_block((100, 100), (4, 4), memory_of, 100) == (12, 8)
    assert choose_block((4, 100), (4, 4), memory_of, 100) == (4, 24)
    assert choose_block((6, 10), (4, 4), memory_of, 10**9) == (8, 12)
    assert choose_block((100, 100), (4, 4), memory_of, 0) == (4, 4)

/** What needs files: Node only. */
export { readCifar10, readCifar100 } from './data/cifar.node.ts';
export { fetchDataset } from './data/fetch.node.ts';

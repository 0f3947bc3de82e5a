/** What needs files: Node only. */
export { readCifar10, readCifar100 } from './data/cifar.node.ts';
export { fetchDataset } from './data/fetch.node.ts';
export {
  findRun, readAlrCheckpoint, readCheckpoint, readResult, RunFolder, writeCheckpoint, type FoundRun, type RunFolderOptions, type RunLog,
} from './train/runFolder.node.ts';
